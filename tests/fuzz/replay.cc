// Runs a fuzz target without libFuzzer: on every seed, and on random changes
// of them that are the same in each run.
//
//   fuzz_NAME --runs N SEED...      a SEED is a file, or a folder of files
//   fuzz_NAME --only I SEED...      what run I did, again
//
// A run that ends the process leaves its number in the temporary folder, in
// bullpen_fuzz_PID.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace bullpen {
namespace {

constexpr uint32_t kSeed = 20261122;
constexpr size_t kMaxBytes = size_t{1} << 16;

std::string Read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> ReadSeeds(const std::vector<std::string>& paths) {
  std::vector<std::filesystem::path> files;
  for (const std::string& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.emplace_back(path);
      continue;
    }
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> seeds;
  for (const auto& file : files) seeds.push_back(Read(file));
  return seeds;
}

class Mutator {
 public:
  explicit Mutator(const std::vector<std::string>& seeds) : seeds_(seeds) {}

  std::string Next() {
    std::string input = seeds_[Below(seeds_.size())];
    for (size_t changes = 1 + Below(8); changes > 0; --changes) Change(input);
    input.resize(std::min(input.size(), kMaxBytes));
    return input;
  }

 private:
  size_t Below(size_t end) { return end == 0 ? 0 : random_() % end; }

  // Places that matter more than others to parsers of text and of lengths.
  std::string Token() {
    static constexpr std::string_view kTokens[] = {"-1",
                                                   "0",
                                                   "1e999",
                                                   "4294967296",
                                                   "18446744073709551616",
                                                   "null",
                                                   "true",
                                                   "\"\"",
                                                   "[]",
                                                   "{}",
                                                   "[",
                                                   "]",
                                                   "{",
                                                   "}",
                                                   ",",
                                                   "\\u0",
                                                   "\xff",
                                                   "\xe2\x96\x81",
                                                   "(",
                                                   "[^",
                                                   "&&",
                                                   "{1,3}",
                                                   "(?i:",
                                                   "*",
                                                   "\\p{"};
    const size_t choice = Below(std::size(kTokens) + 2);
    if (choice < std::size(kTokens)) return std::string(kTokens[choice]);
    return std::string(8, choice == std::size(kTokens) ? '\x7f' : '\xff');
  }

  void Change(std::string& input) {
    const size_t at = Below(input.size() + 1);
    const size_t length = 1 + Below(16);
    switch (Below(7)) {
      case 0:
        if (at < input.size()) input[at] ^= static_cast<char>(1 << Below(8));
        break;
      case 1:
        if (at < input.size()) input[at] = static_cast<char>(random_());
        break;
      case 2:
        input.erase(at, length);
        break;
      case 3:
        input.insert(at, Token());
        break;
      case 4:
        input.replace(at, length, Token());
        break;
      case 5:
        input.insert(at, input.substr(Below(input.size()), length));
        break;
      default: {
        const std::string& other = seeds_[Below(seeds_.size())];
        input.replace(at, length, other.substr(Below(other.size()), 64));
      }
    }
  }

  const std::vector<std::string>& seeds_;
  std::mt19937 random_{kSeed};
};

void Run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()),
                         input.size());
}

// The number of the run that is going on, where a crash leaves it.
class RunNumber {
 public:
  RunNumber()
      : path_(std::filesystem::temp_directory_path() /
              ("bullpen_fuzz_" + std::to_string(getpid()))),
        fd_(open(path_.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600)) {}
  ~RunNumber() {
    close(fd_);
    std::filesystem::remove(path_);
  }
  RunNumber(const RunNumber&) = delete;

  void Set(long number) {
    const std::string text = std::to_string(number) + "\n";
    if (pwrite(fd_, text.data(), text.size(), 0) < 0) std::perror("pwrite");
  }

 private:
  std::filesystem::path path_;
  int fd_;
};

int Main(const std::vector<std::string>& arguments) {
  const bool only = !arguments.empty() && arguments[0] == "--only";
  if (arguments.size() < 3 || (!only && arguments[0] != "--runs")) {
    std::fputs("usage: fuzz_NAME --runs N | --only I SEED...\n", stderr);
    return 2;
  }
  const long last = std::stol(arguments[1]);
  const std::vector<std::string> seeds =
      ReadSeeds({arguments.begin() + 2, arguments.end()});
  if (seeds.empty()) {
    std::fputs("no seeds\n", stderr);
    return 2;
  }
  RunNumber number;
  for (const std::string& seed : seeds) Run(seed);
  Mutator mutator(seeds);
  for (long i = 1; i <= last; ++i) {
    const std::string input = mutator.Next();
    if (only && i < last) continue;
    number.Set(i);
    Run(input);
  }
  std::printf("%zu seeds, %ld changed ones (seed %u)\n", seeds.size(),
              only ? 1 : last, kSeed);
  return 0;
}

}  // namespace
}  // namespace bullpen

int main(int argc, char** argv) {
  return bullpen::Main({argv + 1, argv + argc});
}
