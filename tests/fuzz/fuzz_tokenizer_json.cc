#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/model/tokenizer_json.h"
#include "tests/fuzz/use_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  bullpen::UseTokenizer(bullpen::ParseTokenizerJson(bytes), bytes);
  return 0;
}
