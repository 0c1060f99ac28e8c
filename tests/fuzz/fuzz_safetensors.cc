#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/model/safetensors.h"
#include "tests/fuzz/memory_file.h"

// A header that is accepted must describe tensors that can be read.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const bullpen::MemoryFile input(data, size);
  const auto file = bullpen::SafetensorsFile::Open(input.path());
  if (!file.ok()) return 0;
  for (const auto& [name, tensor] : file->tensors()) {
    std::vector<std::byte> bytes(static_cast<size_t>(tensor.bytes));
    file->Read(tensor, 0, bytes).IgnoreError();
  }
  return 0;
}
