#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/file.h"
#include "engine/model/families.h"
#include "engine/model/tensor_info.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// The scales of a tensor's weights, a tensor of the checkpoint themselves: one
// for so many rows and columns.
struct TensorScales {
  int32_t file = 0;
  TensorInfo info;
  int32_t rows_each = 1;
  int32_t cols_each = 1;
  bool powers_of_two = false;  // so the config says; readers check it
};

// A tensor of a checkpoint: which of its files, where in that, and what is
// between its bytes and the rows that the decoder wants.
struct SourceTensor {
  int32_t file = 0;
  TensorInfo info;
  // Row 2i + s of each head of so many rows is row s * rows / 2 + i of the
  // decoder's: converters to GGUF's architecture llama turn the pairs of a
  // rotation into neighbours. 0: rows are where they belong.
  int32_t interleaved_rows = 0;
  std::optional<TensorScales> scales = {};  // see scaled_tensor.h
};

// A file of weights.
struct SourceFile {
  File file;
  uint64_t header_checksum = 0;
};

// What any kind of model file is read into, see Checkpoint.
struct CheckpointParts {
  std::filesystem::path path;
  nlohmann::json config;      // in the spelling of Hugging Face
  nlohmann::json generation;  // or null
  // Files beside the weights that describe the model, by name: config.json,
  // tokenizer.json and the like. A packed model keeps copies of them.
  std::map<std::string, std::string> descriptions;
  std::vector<SourceFile> files;
  std::map<std::string, SourceTensor> tensors;
  std::optional<TensorNames> names;  // where they are not the family's

  // DataLoss: a tensor of that name is there already.
  absl::Status AddFile(SourceFile file,
                       std::map<std::string, TensorInfo> tensors);
};

// A Hugging Face model directory: config.json, and model.safetensors or
// model.safetensors.index.json with its shards.
absl::StatusOr<CheckpointParts> ReadModelDirectory(
    const std::filesystem::path& dir);

// A GGUF file, or one of the files of a split one, with its metadata turned
// into the config.json that the same model has elsewhere.
absl::StatusOr<CheckpointParts> ReadGgufModel(
    const std::filesystem::path& path);

}  // namespace bullpen
