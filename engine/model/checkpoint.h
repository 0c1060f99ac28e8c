#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/safetensors.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// A tensor of a checkpoint: which of its files, and where in that.
struct SourceTensor {
  int32_t file = 0;
  TensorInfo info;
};

// Files beside the weights that describe a model; a packed model keeps copies
// of those that are there.
inline constexpr std::string_view kDescriptionFiles[] = {
    "config.json",         "generation_config.json",
    "tokenizer.json",      "tokenizer_config.json",
    "chat_template.jinja", "merges.txt",
    "vocab.json"};

// A Hugging Face model directory: config.json, and model.safetensors or
// model.safetensors.index.json with its shards. All headers are checked at
// Open; weights are read tensor by tensor.
class Checkpoint {
 public:
  // NotFound: what is missing, by name. DataLoss: a bad file, see
  // SafetensorsFile; a tensor in two shards or not in the shard that the
  // index says.
  static absl::StatusOr<Checkpoint> Open(const std::filesystem::path& dir);

  const std::filesystem::path& dir() const { return dir_; }
  const nlohmann::json& config() const { return config_; }
  const nlohmann::json& generation() const { return generation_; }  // or null
  const std::map<std::string, SourceTensor>& tensors() const {
    return tensors_;
  }
  const std::filesystem::path& file_of(const SourceTensor& tensor) const {
    return files_[tensor.file].path();
  }

  absl::Status Read(const SourceTensor& tensor, int64_t begin,
                    std::span<std::byte> out) const {
    return files_[tensor.file].Read(tensor.info, begin, out);
  }

  // 32 hex digits over the names, sizes and bytes of description files and
  // headers, and the names, sizes and modification times of weight files.
  absl::StatusOr<std::string> ContentKey() const;

 private:
  absl::Status AddFile(const std::filesystem::path& path);
  absl::Status AddShards(const std::filesystem::path& index_path);

  std::filesystem::path dir_;
  nlohmann::json config_;
  nlohmann::json generation_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, SourceTensor> tensors_;
};

}  // namespace bullpen
