#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// What is in a model: a GGUF file (all files of a split one), a Hugging Face
// directory, a packed model, or one safetensors file.
//   kind      "gguf", "directory", "packed" or "safetensors"
//   metadata  what the files say beside the tensors, key by key; long lists as
//             {"count": N, "first": [...]}
//   tensors   [{name, dtype, shape, bytes}]
//   types     {dtype: {tensors, bytes}}
// Only headers are read. Errors are those of the files' readers.
absl::StatusOr<nlohmann::ordered_json> InspectModel(
    const std::filesystem::path& path);

// The same for people: a line for each key and tensor, then the sums.
std::string InspectionText(const nlohmann::ordered_json& inspection);

}  // namespace bullpen
