#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace bullpen {

// A regular file in memory, for parsers that open files. Lives as long as this
// object.
class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  int fd_;
  std::filesystem::path path_;
};

}  // namespace bullpen
