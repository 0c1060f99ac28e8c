#include <algorithm>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "engine/model/checkpoint_parts.h"
#include "engine/model/config_fields.h"
#include "engine/model/safetensors.h"
#include "engine/model/scaled_tensor.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr std::string_view kDescriptionFiles[] = {
    "config.json",         "generation_config.json",
    "tokenizer.json",      "tokenizer_config.json",
    "chat_template.jinja", "tokenizer.model",
    "merges.txt",          "vocab.json"};

// A name that cannot be followed counts: opening it says what is wrong.
bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::symlink_status(path, ignored).type() != fs::file_type::not_found;
}

absl::Status NoWeights(const fs::path& dir) {
  const bool pickled = Exists(dir / "pytorch_model.bin") ||
                       Exists(dir / "pytorch_model.bin.index.json");
  return absl::NotFoundError(absl::StrCat(
      dir.string(), " has neither ", kSingleFile, " nor ", kIndexFile,
      ", nor the manifest.json of a packed model",
      pickled ? "; its pytorch_model.bin cannot be read, convert it to "
                "safetensors"
              : ""));
}

// A shard is a plain name beside the index: nothing else of the disk is read.
bool IsPlainName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// The index's weight_map, tensor -> shard.
absl::StatusOr<std::map<std::string, std::string>> ReadWeightMap(
    const fs::path& path) {
  ASSIGN_OR_RETURN(const nlohmann::json index,
                   ReadJsonFile(path, absl::StatusCode::kDataLoss));
  ConfigFields fields(index, path.string(), absl::StatusCode::kDataLoss);
  const ConfigFields map = fields.Object("weight_map");
  RETURN_IF_ERROR(fields.status());
  std::map<std::string, std::string> shard_of;
  for (const auto& [tensor, shard] : map.object().items()) {
    if (!shard.is_string() || !IsPlainName(shard.get<std::string>())) {
      return absl::DataLossError(absl::StrCat(
          path.string(), ": the shard of tensor '", Printable(tensor),
          "' is not a file name beside the index"));
    }
    shard_of[tensor] = shard.get<std::string>();
  }
  return shard_of;
}

absl::Status AddSafetensors(const fs::path& path, CheckpointParts& parts) {
  ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(path));
  std::map<std::string, TensorInfo> tensors = file.tensors();
  const uint64_t checksum = file.header_checksum();
  return parts.AddFile({std::move(file).TakeFile(), checksum},
                       std::move(tensors));
}

absl::Status AddShards(const fs::path& index_path, CheckpointParts& parts) {
  using ShardOf = std::map<std::string, std::string>;
  ASSIGN_OR_RETURN(const ShardOf shard_of, ReadWeightMap(index_path));
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
  for (const std::string& shard : shards) {
    if (!Exists(parts.path / shard)) {
      return absl::NotFoundError(
          absl::StrCat(index_path.string(), " names the shard ",
                       Printable(shard), ", which is not there"));
    }
    RETURN_IF_ERROR(AddSafetensors(parts.path / shard, parts));
  }
  for (const auto& [tensor, shard] : shard_of) {
    const auto found = parts.tensors.find(tensor);
    if (found == parts.tensors.end() ||
        parts.files[found->second.file].file.path().filename() != shard) {
      return absl::DataLossError(absl::StrCat(
          index_path.string(), " says that tensor '", Printable(tensor),
          "' is in ", Printable(shard), ", but it is not"));
    }
  }
  return absl::OkStatus();
}

// The decoder's own name of a tensor of a multimodal wrapper; nothing if it
// belongs to another part.
std::optional<std::string> UnwrappedName(const std::string& name) {
  constexpr std::string_view kInner = "model.language_model.";
  constexpr std::string_view kOuter = "language_model.";
  if (name.starts_with(kInner)) return "model." + name.substr(kInner.size());
  if (name.starts_with(kOuter)) return name.substr(kOuter.size());
  if (name.starts_with("lm_head.")) return name;
  return std::nullopt;
}

// Leaves the decoder of a wrapper, under the names that it has alone.
absl::Status Unwrap(CheckpointParts& parts) {
  const auto wrapped = [](const auto& entry) {
    return entry.first.find("language_model.") != std::string::npos &&
           UnwrappedName(entry.first).has_value();
  };
  if (std::none_of(parts.tensors.begin(), parts.tensors.end(), wrapped)) {
    return absl::OkStatus();
  }
  std::map<std::string, SourceTensor> decoder;
  for (auto& [name, tensor] : parts.tensors) {
    const std::optional<std::string> own = UnwrappedName(name);
    if (!own.has_value()) continue;
    if (!decoder.emplace(*own, std::move(tensor)).second) {
      return absl::DataLossError(
          absl::StrCat(parts.path.string(), " has tensor '", Printable(*own),
                       "' with and without the prefix of a language model"));
    }
  }
  parts.tensors = std::move(decoder);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CheckpointParts> ReadModelDirectory(const fs::path& dir) {
  std::error_code ignored;
  if (!fs::is_directory(dir, ignored)) {
    return absl::NotFoundError(
        absl::StrCat(dir.string(), " is not a directory"));
  }
  CheckpointParts parts;
  parts.path = dir;
  ASSIGN_OR_RETURN(
      parts.config,
      ReadJsonFile(dir / "config.json", absl::StatusCode::kInvalidArgument));
  if (Exists(dir / "generation_config.json")) {
    ASSIGN_OR_RETURN(parts.generation,
                     ReadJsonFile(dir / "generation_config.json",
                                  absl::StatusCode::kInvalidArgument));
  }
  if (Exists(dir / kSingleFile)) {
    RETURN_IF_ERROR(AddSafetensors(dir / kSingleFile, parts));
  } else if (Exists(dir / kIndexFile)) {
    RETURN_IF_ERROR(AddShards(dir / kIndexFile, parts));
  } else {
    return NoWeights(dir);
  }
  RETURN_IF_ERROR(Unwrap(parts));
  RETURN_IF_ERROR(JoinScales(parts));
  for (const std::string_view name : kDescriptionFiles) {
    if (!Exists(dir / name)) continue;
    ASSIGN_OR_RETURN(parts.descriptions[std::string(name)],
                     ReadFile(dir / name, kJsonFileLimit));
  }
  return parts;
}

}  // namespace bullpen
