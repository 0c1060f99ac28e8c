#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/model/tokenizer_json.h"
#include "nlohmann/json.hpp"
#include "tests/fuzz/use_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const nlohmann::json root = nlohmann::json::parse(bytes, nullptr, false);
  if (!root.is_discarded()) {
    bullpen::UseTokenizer(bullpen::ParseTokenizerJson(root), bytes);
  }
  return 0;
}
