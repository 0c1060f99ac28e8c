#include "base/available_memory.h"

#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

class CgroupTest : public testing::Test {
 protected:
  CgroupTest() {
    std::string name =
        (std::filesystem::path(testing::TempDir()) / "cgroup-XXXXXX").string();
    directory_ = mkdtemp(name.data());
  }
  ~CgroupTest() override { std::filesystem::remove_all(directory_); }
  void Write(const std::string& file, const std::string& text) const {
    std::ofstream(directory_ / file) << text << '\n';
  }

  std::filesystem::path directory_;
};

TEST_F(CgroupTest, PageCacheOfVersion2IsFree) {
  Write("memory.max", "1000000");
  Write("memory.current", "900000");
  Write("memory.stat",
        "anon 200000\nfile 700000\nshmem 100000\ninactive_file 500000\n"
        "active_file 100000");
  EXPECT_EQ(BytesLeftInCgroup(directory_), 700000);
}

TEST_F(CgroupTest, PageCacheOfVersion1IsFreeWithThatOfTheGroupsBelow) {
  Write("memory.limit_in_bytes", "1000000");
  Write("memory.usage_in_bytes", "900000");
  Write("memory.stat",
        "cache 1\ninactive_file 10\nactive_file 20\n"
        "total_cache 600000\ntotal_inactive_file 300000\n"
        "total_active_file 200000");
  EXPECT_EQ(BytesLeftInCgroup(directory_), 600000);
}

TEST_F(CgroupTest, WithoutALimitThereIsNothingToSay) {
  EXPECT_EQ(BytesLeftInCgroup(directory_), std::nullopt);
  Write("memory.max", "max");
  Write("memory.current", "900000");
  EXPECT_EQ(BytesLeftInCgroup(directory_), std::nullopt);
}

TEST_F(CgroupTest, AGroupAboveItsLimitHasNothingLeft) {
  Write("memory.max", "1000");
  Write("memory.current", "5000");
  EXPECT_EQ(BytesLeftInCgroup(directory_), 0);
}

TEST(AvailableBytes, IsSomeOfTheMachines) {
  EXPECT_GT(AvailableBytes(), 0);
  EXPECT_LT(AvailableBytes(), int64_t{1} << 50);
}

}  // namespace
}  // namespace bullpen
