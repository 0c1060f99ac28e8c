#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/direct_file.h"
#include "base/direct_writer.h"
#include "base/huge_buffer.h"
#include "base/read_queue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint32_t kSeed = 7;

std::vector<std::byte> Noise(size_t bytes) {
  std::mt19937 random(kSeed);
  std::vector<std::byte> noise(bytes);
  for (std::byte& byte : noise) byte = static_cast<std::byte>(random());
  return noise;
}

std::vector<std::byte> Contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)),
                         std::istreambuf_iterator<char>());
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// On a disk and in memory, direct where that can be, and as without O_DIRECT.
struct Place {
  const char* folder;
  DirectFile::Mode mode;
};

class DirectIo : public ::testing::TestWithParam<Place> {
 protected:
  DirectIo() {
    std::string name =
        std::string(GetParam().folder) + "/bullpen-direct-XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    dir_ = name;
  }
  ~DirectIo() override { fs::remove_all(dir_); }

  fs::path Write(const std::vector<std::byte>& bytes) const {
    const fs::path path = dir_ / "source";
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
    return path;
  }
  DirectFile Open(const fs::path& path) const {
    auto file = DirectFile::Open(path, GetParam().mode);
    EXPECT_TRUE(file.ok()) << file.status();
    return *std::move(file);
  }

  fs::path dir_;
};

TEST_P(DirectIo, ReadsWholeBlocksAndTheBlockOfTheFilesEnd) {
  const std::vector<std::byte> bytes = Noise(3 * 4096 + 100);
  const DirectFile file = Open(Write(bytes));
  HugeBuffer buffer = *HugeBuffer::Allocate(4 * 4096);
  for (int64_t offset = 0; offset < 4 * 4096; offset += 4096) {
    const int64_t needed = std::ssize(bytes) - offset;
    const auto out = buffer.span().first(4 * 4096 - offset);
    ASSERT_TRUE(file.Read(offset, out, needed).ok()) << offset;
    EXPECT_TRUE(
        std::ranges::equal(out.first(needed), std::span(bytes).subspan(offset)))
        << offset;
  }
}

TEST_P(DirectIo, ReadPastTheEndNamesFileAndOffset) {
  const fs::path path = Write(Noise(4096 + 100));
  const DirectFile file = Open(path);
  HugeBuffer buffer = *HugeBuffer::Allocate(8192);
  const absl::Status status = file.Read(4096, buffer.span().first(4096), 101);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(path.string()), HasSubstr("4197")));
}

TEST_P(DirectIo, FileThatShrinksWhileItIsReadIsDataLoss) {
  const fs::path path = Write(Noise(64 << 10));
  const DirectFile file = Open(path);
  fs::resize_file(path, 5000);
  HugeBuffer buffer = *HugeBuffer::Allocate(64 << 10);
  EXPECT_EQ(file.Read(0, buffer.span(), 64 << 10).code(),
            absl::StatusCode::kDataLoss);
}

TEST_P(DirectIo, WritesPiecesOfAnySizeInOrder) {
  // Larger than a buffer, of one, of a block, of less and of nothing.
  const std::vector<size_t> sizes = {
      100, 4096, 0, 9 << 20, 1, 4095, 8 << 20, (20 << 20) + 17, 64, 63};
  const size_t total = std::accumulate(sizes.begin(), sizes.end(), size_t{0});
  const std::vector<std::byte> bytes = Noise(total);
  auto writer = DirectWriter::Create(dir_ / "out", static_cast<int64_t>(total),
                                     GetParam().mode);
  ASSERT_TRUE(writer.ok()) << writer.status();
  size_t at = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto piece = std::span(bytes).subspan(at, sizes[i]);
    at += sizes[i];
    if (i % 2 == 0) {
      ASSERT_TRUE((*writer)->Append(piece).ok()) << i;
      continue;
    }
    const auto room = (*writer)->Room(std::ssize(piece));
    ASSERT_TRUE(room.ok()) << room.status();
    std::ranges::copy(piece, room->begin());
    ASSERT_TRUE((*writer)->Commit().ok()) << i;
  }
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_TRUE(Contents(dir_ / "out") == bytes) << "seed " << kSeed;
}

TEST_P(DirectIo, EmptyFileIsWritten) {
  auto writer = DirectWriter::Create(dir_ / "out", 0, GetParam().mode);
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_TRUE((*writer)->Finish().ok());
  EXPECT_EQ(fs::file_size(dir_ / "out"), 0u);
}

TEST_P(DirectIo, FileThatIsThereIsNotOverwritten) {
  const fs::path path = Write(Noise(10));
  EXPECT_EQ(DirectWriter::Create(path, 10, GetParam().mode).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Contents(path), Noise(10));
}

TEST_P(DirectIo, QueueGivesReadsInTheOrderOfTheirJobs) {
  constexpr int kJobs = 40;
  const std::vector<std::byte> bytes = Noise(kJobs * 4096);
  const DirectFile file = Open(Write(bytes));
  HugeBuffer buffer = *HugeBuffer::Allocate(std::ssize(bytes));
  ReadQueue queue(3);
  for (int i = 0; i < kJobs; ++i) {
    queue.Submit({.file = &file,
                  .offset = i * 4096,
                  .out = buffer.span().subspan(i * 4096, 4096),
                  .needed = 4096});
  }
  for (int i = 0; i < kJobs; ++i) {
    ASSERT_TRUE(queue.Wait().ok()) << i;
    EXPECT_TRUE(std::ranges::equal(buffer.span().subspan(i * 4096, 4096),
                                   std::span(bytes).subspan(i * 4096, 4096)))
        << i;
  }
}

TEST_P(DirectIo, QueueGivesEachJobItsOwnErrorAndDropsWhatNobodyWaitsFor) {
  const DirectFile file = Open(Write(Noise(2 * 4096)));
  HugeBuffer buffer = *HugeBuffer::Allocate(4 * 4096);
  ReadQueue queue(2);
  for (const int64_t offset : {0, 8192, 4096, 8192, 0}) {
    queue.Submit({.file = &file,
                  .offset = offset,
                  .out = buffer.span().subspan(offset, 4096),
                  .needed = 4096});
  }
  EXPECT_TRUE(queue.Wait().ok());
  EXPECT_EQ(queue.Wait().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(queue.Wait().ok());
}

INSTANTIATE_TEST_SUITE_P(
    Places, DirectIo,
    ::testing::Values(Place{"/tmp", DirectFile::Mode::kDirect},
                      Place{"/tmp", DirectFile::Mode::kBuffered},
                      Place{"/dev/shm", DirectFile::Mode::kDirect}));

TEST(DirectFile, MissingFileIsNamed) {
  const auto file = DirectFile::Open("/nonexistent/weights");
  EXPECT_EQ(file.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(file.status().message()),
              HasSubstr("/nonexistent/weights"));
}

// What `work` gives in a child process.
int InChild(bool (*work)(const fs::path&), const fs::path& path) {
  fs::remove(path);
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    _exit(work(path) ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  fs::remove(path);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Files of this process may not be longer.
bool LimitFiles(rlim_t bytes) {
  const rlimit limit = {bytes, bytes};
  return setrlimit(RLIMIT_FSIZE, &limit) == 0;
}

bool IsFullDisk(const absl::Status& status, const std::string& words) {
  return absl::IsResourceExhausted(status) &&
         std::string(status.message()).find(words) != std::string::npos;
}

TEST(DirectWriter, SpaceThatIsNotThereShowsAtOnceAndNamesTheFile) {
  const auto work = [](const fs::path& path) {
    return LimitFiles(1 << 20) &&
           IsFullDisk(DirectWriter::Create(path, 2 << 20).status(),
                      "cannot reserve 2.00 MiB for " + path.string());
  };
  EXPECT_EQ(InChild(work, fs::temp_directory_path() / "bullpen-full-1"), 0);
}

TEST(DirectWriter, DiskThatFillsUpLaterNamesFileAndByte) {
  const auto work = [](const fs::path& path) {
    auto writer = DirectWriter::Create(path, 2 << 20);
    if (!writer.ok() || !LimitFiles(1 << 20)) return false;
    absl::Status status = (*writer)->Append(Noise(2 << 20));
    status.Update((*writer)->Finish());
    return IsFullDisk(status,
                      "cannot write at byte 1048576 of " + path.string());
  };
  EXPECT_EQ(InChild(work, fs::temp_directory_path() / "bullpen-full-2"), 0);
}

}  // namespace
}  // namespace bullpen
