#include "tests/fuzz/memory_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "base/check.h"

namespace bullpen {

MemoryFile::MemoryFile(const uint8_t* data, size_t size)
    : fd_(memfd_create("fuzz", MFD_CLOEXEC)),
      path_("/proc/self/fd/" + std::to_string(fd_)) {
  CHECK(fd_ >= 0);
  while (size > 0) {
    const ssize_t written = write(fd_, data, size);
    CHECK(written > 0);
    data += written;
    size -= static_cast<size_t>(written);
  }
}

MemoryFile::~MemoryFile() { close(fd_); }

}  // namespace bullpen
