#include "base/huge_buffer.h"

#include <linux/filter.h>
#include <linux/mempolicy.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/memory_policy.h"
#include "base/numa.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

// What the kernel says of the page at `address`.
struct PagePolicy {
  int mode = -1;
  std::vector<int32_t> nodes;
};

PagePolicy PolicyAt(const std::byte* address) {
  PagePolicy policy;
  unsigned long mask[16] = {};
  EXPECT_EQ(syscall(SYS_get_mempolicy, &policy.mode, mask, 1024UL, address,
                    static_cast<unsigned long>(MPOL_F_ADDR)),
            0);
  for (int32_t node = 0; node < 1024; ++node) {
    if (mask[node / 64] >> node % 64 & 1) policy.nodes.push_back(node);
  }
  return policy;
}

// Of the mapping that begins at `data`, from /proc/self/smaps; -1: none does.
int64_t HugeKibOf(const std::byte* data) {
  std::ifstream lines("/proc/self/smaps");
  const std::string start =
      absl::StrCat(absl::Hex(reinterpret_cast<uintptr_t>(data)), "-");
  bool here = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(start)) here = true;
    if (!here || !line.starts_with("AnonHugePages:")) continue;
    int64_t kib = -1;
    std::istringstream(line.substr(14)) >> kib;
    return kib;
  }
  return -1;
}

// Nodes of this machine, where the kernel lets this process choose them.
class PlacedBufferTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const NumaTopology::Node& node : NumaTopology::Read().nodes) {
      nodes_.push_back(node.id);
    }
    const absl::Status status = TryBindPages(nodes_);
    if (absl::IsUnimplemented(status) || absl::IsPermissionDenied(status)) {
      GTEST_SKIP() << "this kernel or container refuses it: " << status;
    }
    ASSERT_TRUE(status.ok()) << status;
  }

  std::vector<int32_t> nodes_;
};

TEST_F(PlacedBufferTest, OneNodeIsBound) {
  const std::vector<int32_t> first = {nodes_[0]};
  for (const int64_t bytes : {int64_t{5000}, 3 * kHugePage + 1}) {
    const HugeBuffer buffer =
        *HugeBuffer::Allocate(bytes, HugeBuffer::Touch::kNow, first);
    for (const std::byte* at : {buffer.data(), buffer.data() + bytes - 1}) {
      const PagePolicy policy = PolicyAt(at);
      EXPECT_EQ(policy.mode, MPOL_BIND);
      EXPECT_EQ(policy.nodes, first);
    }
  }
}

TEST_F(PlacedBufferTest, SeveralNodesTakeTurnsInSmallPages) {
  // The kernel leaves out those that the machine does not have.
  std::vector<int32_t> asked = nodes_;
  asked.push_back(nodes_.back() + 1);
  for (const int64_t bytes : {int64_t{5000}, 3 * kHugePage + 1}) {
    const HugeBuffer buffer =
        *HugeBuffer::Allocate(bytes, HugeBuffer::Touch::kNow, asked);
    for (const std::byte* at : {buffer.data(), buffer.data() + bytes - 1}) {
      const PagePolicy policy = PolicyAt(at);
      EXPECT_EQ(policy.mode, MPOL_INTERLEAVE);
      EXPECT_EQ(policy.nodes, nodes_);
    }
    EXPECT_EQ(HugeKibOf(buffer.data()), 0);
  }
}

TEST_F(PlacedBufferTest, WithoutNodesTheKernelChooses) {
  const HugeBuffer buffer = *HugeBuffer::Allocate(kHugePage);
  EXPECT_EQ(PolicyAt(buffer.data()).mode, MPOL_DEFAULT);
}

// From now on mbind fails in this process as it does in a container.
bool ForbidMbind() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mbind, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog filter = {.len = std::size(program), .filter = program};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST_F(PlacedBufferTest, AContainerThatForbidsItStillHasItsMemory) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const bool forbidden = ForbidMbind();
        const absl::Status status = TryBindPages(nodes_);
        const auto buffer =
            HugeBuffer::Allocate(kHugePage, HugeBuffer::Touch::kNow, nodes_);
        _exit(!forbidden                          ? 2
              : !absl::IsPermissionDenied(status) ? 3
              : !buffer.ok()                      ? 4
                                                  : 0);
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(PlacedBufferTest, ANodeThatDoesNotExistIsOnlyLogged) {
  const std::vector<int32_t> absent = {1023};
  EXPECT_FALSE(TryBindPages(absent).ok());
  const HugeBuffer buffer =
      *HugeBuffer::Allocate(kHugePage, HugeBuffer::Touch::kNow, absent);
  EXPECT_EQ(PolicyAt(buffer.data()).mode, MPOL_DEFAULT);
}

TEST(HugeBufferTest, LargeBuffersAreAlignedToHugePages) {
  for (int64_t bytes : {kHugePage, kHugePage + 1, 3 * kHugePage - 5}) {
    const absl::StatusOr<HugeBuffer> buffer = HugeBuffer::Allocate(bytes);
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % kHugePage, 0u);
    EXPECT_EQ(buffer->size(), bytes);
    EXPECT_EQ(buffer->span().size(), static_cast<size_t>(bytes));
  }
}

TEST(HugeBufferTest, AllBytesAreZeroAndWritable) {
  for (int64_t bytes : {int64_t{1}, int64_t{4097}, kHugePage + 3}) {
    absl::StatusOr<HugeBuffer> buffer = HugeBuffer::Allocate(bytes);
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 4096, 0u);
    const std::span<std::byte> all = buffer->span();
    EXPECT_TRUE(std::all_of(all.begin(), all.end(),
                            [](std::byte b) { return b == std::byte{0}; }));
    std::fill(all.begin(), all.end(), std::byte{0xFF});
  }
}

TEST(HugeBufferTest, TooLargeIsAnErrorThatSaysHowMuch) {
  const absl::Status status = HugeBuffer::Allocate(int64_t{1} << 60).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("1048576.00 TiB"), absl::string_view::npos)
      << status;
}

TEST(HugeBufferTest, MovesLeaveNothingBehind) {
  HugeBuffer first = HugeBuffer::Allocate(100).value();
  std::byte* data = first.data();
  HugeBuffer second = std::move(first);
  EXPECT_EQ(second.data(), data);
  EXPECT_EQ(first.data(), nullptr);
  EXPECT_EQ(first.size(), 0);
  HugeBuffer third;
  third = std::move(second);
  EXPECT_EQ(third.data(), data);
  EXPECT_EQ(third.size(), 100);
}

}  // namespace
}  // namespace bullpen
