#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/model/config.h"
#include "nlohmann/json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const nlohmann::json root = nlohmann::json::parse(bytes, nullptr, false);
  if (root.is_discarded()) return 0;
  bullpen::ParseModelConfig(root).status().IgnoreError();
  bullpen::ParseGenerationDefaults(root, root).status().IgnoreError();
  return 0;
}
