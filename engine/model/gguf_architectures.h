#pragma once

#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/model/checkpoint_parts.h"
#include "engine/model/families.h"
#include "engine/model/gguf_fields.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// What a mapping from metadata to config.json reads and writes.
struct GgufMapping {
  GgufFields& fields;
  std::string prefix;  // "qwen3moe.", of the architecture's own keys
  const std::map<std::string, SourceTensor>& tensors;
  nlohmann::json& config;

  std::string Key(std::string_view name) const {
    return prefix + std::string(name);
  }
  bool HasTensor(const std::string& name) const {
    return tensors.contains(name);
  }
};

// An architecture of GGUF files: one entry of the table in
// gguf_architectures.cc.
struct GgufArchitecture {
  std::string_view name;  // general.architecture
  TensorNames names;
  // Rows of q and k stand as interleaved rotation wants them.
  bool interleaved_qk = false;
  // Writes model_type and the keys of config.json that differ between
  // families; those that all share are already there.
  void (*map)(GgufMapping& mapping);
};

// InvalidArgument lists the supported ones.
absl::StatusOr<const GgufArchitecture*> FindGgufArchitecture(
    std::string_view name);

}  // namespace bullpen
