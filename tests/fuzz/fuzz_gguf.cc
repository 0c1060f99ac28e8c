#include <cstddef>
#include <cstdint>

#include "engine/model/checkpoint.h"
#include "engine/model/config.h"
#include "engine/model/gguf.h"
#include "engine/model/row_reader.h"
#include "tests/fuzz/memory_file.h"

// A file that is accepted must describe tensors whose rows can be read; as a
// model, too, with its config, tokenizer and template.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const bullpen::MemoryFile input(data, size);
  if (!bullpen::GgufFile::Open(input.path()).ok()) return 0;
  const auto checkpoint = bullpen::Checkpoint::Open(input.path());
  if (!checkpoint.ok()) return 0;
  bullpen::ParseModelConfig(checkpoint->config()).status().IgnoreError();
  bullpen::RowReader reader(*checkpoint);
  for (const auto& [name, tensor] : checkpoint->tensors()) {
    if (bullpen::FormatOf(tensor) == nullptr) continue;
    reader.Read(tensor, {0, 1}, bullpen::kernels::DType::kF32)
        .status()
        .IgnoreError();
  }
  return 0;
}
