#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/checkpoint_parts.h"
#include "engine/model/families.h"
#include "kernels/block_format.h"

namespace bullpen {

// A model as it was released: a Hugging Face directory or a GGUF file. All
// headers are checked at Open; weights are read tensor by tensor, with
// RowReader. Nothing above this class knows of which kind it is.
class Checkpoint {
 public:
  // NotFound: what is missing, by name. DataLoss: a bad file, see
  // SafetensorsFile and GgufFile; a tensor in two files or not in the one that
  // an index says. InvalidArgument: a bad config or metadata, by key.
  static absl::StatusOr<Checkpoint> Open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return parts_.path; }
  const nlohmann::json& config() const { return parts_.config; }
  const nlohmann::json& generation() const { return parts_.generation; }
  const std::map<std::string, SourceTensor>& tensors() const {
    return parts_.tensors;
  }
  const std::filesystem::path& file_of(const SourceTensor& tensor) const {
    return parts_.files[tensor.file].file.path();
  }
  const File& open_file(int32_t file) const { return parts_.files[file].file; }
  // Where this checkpoint keeps the tensors of its family.
  const TensorNames& names(const Family& family) const {
    return parts_.names.has_value() ? *parts_.names : family.names;
  }

  // Writes config.json and the others that describe the model into `dir`.
  absl::Status WriteDescriptions(const std::filesystem::path& dir) const;

  // 32 hex digits over the names, sizes and bytes of description files and
  // headers, and the names, sizes and modification times of weight files.
  absl::StatusOr<std::string> ContentKey() const;

 private:
  explicit Checkpoint(CheckpointParts parts) : parts_(std::move(parts)) {}

  CheckpointParts parts_;
};

// How the tensor's elements are stored; null if they are no weights that can
// be read.
const kernels::BlockFormat* FormatOf(const SourceTensor& tensor);

// The type of kernels that holds every weight of the tensor exactly; nothing
// if they cannot be read.
std::optional<kernels::DType> KernelDType(const SourceTensor& tensor);

}  // namespace bullpen
