#include "engine/model/checkpoint.h"

#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/config_fields.h"
#define XXH_STATIC_LINKING_ONLY  // The state lives on the stack.
#include "xxhash.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
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

void Hash(XXH3_state_t& state, std::string_view bytes) {
  // Lengths keep "ab" + "c" apart from "a" + "bc".
  const uint64_t size = bytes.size();
  XXH3_128bits_update(&state, &size, sizeof(size));
  XXH3_128bits_update(&state, bytes.data(), bytes.size());
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const fs::path& dir) {
  std::error_code ignored;
  if (!fs::is_directory(dir, ignored)) {
    return absl::NotFoundError(
        absl::StrCat(dir.string(), " is not a directory"));
  }
  Checkpoint checkpoint;
  checkpoint.dir_ = dir;
  ASSIGN_OR_RETURN(
      checkpoint.config_,
      ReadJsonFile(dir / "config.json", absl::StatusCode::kInvalidArgument));
  if (Exists(dir / "generation_config.json")) {
    ASSIGN_OR_RETURN(checkpoint.generation_,
                     ReadJsonFile(dir / "generation_config.json",
                                  absl::StatusCode::kInvalidArgument));
  }
  if (Exists(dir / kSingleFile)) {
    RETURN_IF_ERROR(checkpoint.AddFile(dir / kSingleFile));
  } else if (Exists(dir / kIndexFile)) {
    RETURN_IF_ERROR(checkpoint.AddShards(dir / kIndexFile));
  } else {
    return NoWeights(dir);
  }
  return checkpoint;
}

absl::Status Checkpoint::AddFile(const fs::path& path) {
  ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(path));
  const int32_t index = static_cast<int32_t>(files_.size());
  for (const auto& [name, info] : file.tensors()) {
    const auto [at, fresh] =
        tensors_.emplace(name, SourceTensor{.file = index, .info = info});
    if (!fresh) {
      return absl::DataLossError(absl::StrCat(
          "tensor '", Printable(name), "' is both in ",
          file_of(at->second).string(), " and in ", path.string()));
    }
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status Checkpoint::AddShards(const fs::path& index_path) {
  using ShardOf = std::map<std::string, std::string>;
  ASSIGN_OR_RETURN(const ShardOf shard_of, ReadWeightMap(index_path));
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
  for (const std::string& shard : shards) {
    if (!Exists(dir_ / shard)) {
      return absl::NotFoundError(
          absl::StrCat(index_path.string(), " names the shard ",
                       Printable(shard), ", which is not there"));
    }
    RETURN_IF_ERROR(AddFile(dir_ / shard));
  }
  for (const auto& [tensor, shard] : shard_of) {
    const auto found = tensors_.find(tensor);
    if (found == tensors_.end() || file_of(found->second).filename() != shard) {
      return absl::DataLossError(absl::StrCat(
          index_path.string(), " says that tensor '", Printable(tensor),
          "' is in ", Printable(shard), ", but it is not"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Checkpoint::ContentKey() const {
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  for (const std::string_view name : kDescriptionFiles) {
    if (!Exists(dir_ / name)) continue;
    ASSIGN_OR_RETURN(const std::string bytes,
                     ReadFile(dir_ / name, kJsonFileLimit));
    Hash(state, name);
    Hash(state, bytes);
  }
  for (const SafetensorsFile& file : files_) {
    std::error_code error;
    const auto written = fs::last_write_time(file.path(), error);
    if (error) {
      return absl::NotFoundError(absl::StrCat(
          "cannot stat ", file.path().string(), ": ", error.message()));
    }
    Hash(state, file.path().filename().string());
    Hash(state, absl::StrCat(file.size(), " ", file.header_checksum(), " ",
                             written.time_since_epoch().count()));
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(&state);
  return absl::StrFormat("%016x%016x", hash.high64, hash.low64);
}

}  // namespace bullpen
