#include "base/huge_buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace bullpen {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

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
