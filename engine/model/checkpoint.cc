#include "engine/model/checkpoint.h"

#include <system_error>

#include "absl/strings/str_format.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/xxh3.h"
#include "engine/model/config_fields.h"
#include "engine/model/gguf.h"
#include "engine/model/scaled_tensor.h"
#include "kernels/quant_panels.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;

void Hash(XXH3_state_t& state, std::string_view bytes) {
  // Lengths keep "ab" + "c" apart from "a" + "bc".
  const uint64_t size = bytes.size();
  XXH3_128bits_update(&state, &size, sizeof(size));
  XXH3_128bits_update(&state, bytes.data(), bytes.size());
}

// The one GGUF model of a directory that has no config.json, as download
// programs leave it; nothing if there is none or more than one.
std::optional<fs::path> OnlyGguf(const fs::path& dir) {
  std::optional<fs::path> only;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir, error)) {
    if (entry.path().extension() != ".gguf") continue;
    // Of the files of a split model, the first.
    const std::string stem = entry.path().stem().string();
    const size_t of = stem.rfind("-of-");
    if (of != std::string::npos && of >= 6 &&
        stem.substr(of - 6, 6) != "-00001") {
      continue;
    }
    if (only.has_value()) return std::nullopt;
    only = entry.path();
  }
  return only;
}

}  // namespace

absl::Status CheckpointParts::AddFile(SourceFile file,
                                      std::map<std::string, TensorInfo> added) {
  const int32_t index = static_cast<int32_t>(files.size());
  for (auto& [name, info] : added) {
    const auto [at, fresh] = tensors.emplace(
        name, SourceTensor{.file = index, .info = std::move(info)});
    if (!fresh) {
      return absl::DataLossError(
          absl::StrCat("tensor '", Printable(name), "' is both in ",
                       files[at->second.file].file.path().string(), " and in ",
                       file.file.path().string()));
    }
  }
  files.push_back(std::move(file));
  return absl::OkStatus();
}

absl::StatusOr<Checkpoint> Checkpoint::Open(const fs::path& path) {
  std::error_code ignored;
  fs::path gguf = path;
  bool is_gguf = fs::is_regular_file(path, ignored);
  if (fs::is_directory(path, ignored) &&
      fs::symlink_status(path / "config.json", ignored).type() ==
          fs::file_type::not_found) {
    if (const std::optional<fs::path> only = OnlyGguf(path)) {
      gguf = *only;
      is_gguf = true;
    }
  }
  if (is_gguf) {
    ASSIGN_OR_RETURN(CheckpointParts parts, ReadGgufModel(gguf));
    return Checkpoint(std::move(parts));
  }
  ASSIGN_OR_RETURN(CheckpointParts parts, ReadModelDirectory(path));
  return Checkpoint(std::move(parts));
}

absl::Status Checkpoint::WriteDescriptions(const fs::path& dir) const {
  for (const auto& [name, bytes] : parts_.descriptions) {
    RETURN_IF_ERROR(WriteNewFile(dir / name, bytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Checkpoint::ContentKey() const {
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  for (const auto& [name, bytes] : parts_.descriptions) {
    Hash(state, name);
    Hash(state, bytes);
  }
  for (const SourceFile& source : parts_.files) {
    const fs::path& path = source.file.path();
    std::error_code error;
    const auto written = fs::last_write_time(path, error);
    if (error) {
      return absl::NotFoundError(
          absl::StrCat("cannot stat ", path.string(), ": ", error.message()));
    }
    Hash(state, path.filename().string());
    Hash(state, absl::StrCat(source.file.size(), " ", source.header_checksum,
                             " ", written.time_since_epoch().count()));
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(&state);
  return absl::StrFormat("%016x%016x", hash.high64, hash.low64);
}

const kernels::BlockFormat* FormatOf(const SourceTensor& tensor) {
  const kernels::BlockFormat* format =
      kernels::FindBlockFormat(tensor.info.dtype);
  return format != nullptr && format->readable() ? format : nullptr;
}

std::optional<kernels::DType> KernelDType(const SourceTensor& tensor) {
  // An E4M3 number has four significant bits.
  if (IsFp8(tensor)) {
    return tensor.scales->powers_of_two ? kernels::DType::kBF16
                                        : kernels::DType::kF32;
  }
  const kernels::BlockFormat* format = FormatOf(tensor);
  if (format == nullptr) return std::nullopt;
  return kernels::PanelTypeOf(*format);
}

}  // namespace bullpen
