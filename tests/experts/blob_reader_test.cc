#include "engine/experts/blob_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/huge_buffer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

using ::testing::HasSubstr;

// A file of `bytes` bytes, byte i = i * 7 / 4096, removed at the end.
class ScratchFile {
 public:
  ScratchFile(const std::string& folder, size_t bytes) {
    path_ = folder + "/bullpen-blob-XXXXXX";
    const int fd = mkstemp(path_.data());
    EXPECT_GE(fd, 0) << path_;
    std::string content(bytes, '\0');
    for (size_t i = 0; i < bytes; ++i) content[i] = Expected(i);
    EXPECT_EQ(write(fd, content.data(), bytes), static_cast<ssize_t>(bytes));
    close(fd);
  }
  ~ScratchFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }
  static char Expected(size_t i) {
    return static_cast<char>(i * 7 / 4096 + i % 251);
  }

 private:
  std::string path_;
};

bool Holds(std::span<const std::byte> bytes, int64_t offset) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const char expected =
        ScratchFile::Expected(static_cast<size_t>(offset) + i);
    if (static_cast<char>(bytes[i]) != expected) return false;
  }
  return true;
}

class BlobReaderTest : public ::testing::TestWithParam<const char*> {};

TEST_P(BlobReaderTest, ReadsExactlyTheBytesAsked) {
  const ScratchFile a(GetParam(), 64 << 10);
  const ScratchFile b(GetParam(), 16 << 10);
  auto reader = OpenBlobFiles({a.path(), b.path()});
  ASSERT_TRUE(reader.ok()) << reader.status();
  HugeBuffer buffer = *HugeBuffer::Allocate(64 << 10);
  for (const int64_t size : {4096, 12288, 65536}) {
    const auto out = buffer.span().first(static_cast<size_t>(size));
    for (int64_t offset = 0; offset + size <= 65536; offset += 4096) {
      std::ranges::fill(out, std::byte{0xee});
      ASSERT_TRUE((*reader)->Read(0, offset, out).ok());
      EXPECT_TRUE(Holds(out, offset)) << size << " at " << offset;
    }
  }
  ASSERT_TRUE((*reader)->Read(1, 8192, buffer.span().first(8192)).ok());
  EXPECT_TRUE(Holds(buffer.span().first(8192), 8192));
}

TEST_P(BlobReaderTest, AReadPastTheEndIsDataLossThatNamesFileAndOffset) {
  const ScratchFile odd(GetParam(), 10000);
  auto reader = OpenBlobFiles({odd.path()});
  ASSERT_TRUE(reader.ok()) << reader.status();
  HugeBuffer buffer = *HugeBuffer::Allocate(64 << 10);
  for (const int64_t offset : {0, 4096, 8192, 12288, 1 << 20}) {
    const absl::Status status =
        (*reader)->Read(0, offset, buffer.span().first(12288));
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(odd.path()));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(std::to_string(offset)));
  }
  EXPECT_TRUE((*reader)->Read(0, 4096, buffer.span().first(4096)).ok());
}

// /dev/shm is tmpfs: older kernels refuse O_DIRECT there, newer ones take it.
INSTANTIATE_TEST_SUITE_P(Places, BlobReaderTest,
                         ::testing::Values("/tmp", "/dev/shm"));

TEST(BlobReader, AMissingFileIsDataLossThatNamesIt) {
  const auto reader = OpenBlobFiles({"/nonexistent/experts.safetensors"});
  EXPECT_TRUE(absl::IsDataLoss(reader.status()));
  EXPECT_THAT(std::string(reader.status().message()),
              HasSubstr("/nonexistent/experts.safetensors: No such file"));
}

TEST(BlobReader, AFileWithoutDirectReadsIsReadBuffered) {
  // procfs takes no O_DIRECT.
  auto reader = OpenBlobFiles({"/proc/version"});
  ASSERT_TRUE(reader.ok()) << reader.status();
  HugeBuffer buffer = *HugeBuffer::Allocate(4096);
  const absl::Status status = (*reader)->Read(0, 0, buffer.span());
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(static_cast<char>(buffer.data()[0]), 'L');
}

TEST(BlobReader, AReadErrorCarriesTheSystemsWords) {
  auto reader = OpenBlobFiles({"/tmp"});  // opens, and read gives EISDIR
  ASSERT_TRUE(reader.ok()) << reader.status();
  HugeBuffer buffer = *HugeBuffer::Allocate(4096);
  const absl::Status status = (*reader)->Read(0, 8192, buffer.span());
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_EQ(std::string(status.message()),
            "cannot read /tmp at offset 8192: Is a directory");
}

}  // namespace
}  // namespace bullpen
