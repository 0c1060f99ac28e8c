#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/file.h"
#include "engine/model/gguf_header.h"
#include "engine/model/tensor_info.h"

namespace bullpen {

// Whether the file begins as a GGUF file does.
bool LooksLikeGguf(const std::filesystem::path& path);

// A GGUF file whose header has been checked to the letter: every type, size,
// alignment and offset; no tensors overlap or reach past the end. Dimensions
// are turned round, so that the last runs fastest. Reads with pread. Any
// thread.
class GgufFile {
 public:
  // DataLoss names the file, the key or tensor, the value and the limit.
  static absl::StatusOr<GgufFile> Open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  uint32_t version() const { return version_; }
  const GgufMetadata& metadata() const { return metadata_; }
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  uint64_t header_checksum() const { return header_checksum_; }
  // The open file, for who has taken the rest.
  File TakeFile() && { return std::move(file_); }

 private:
  explicit GgufFile(File file) : file_(std::move(file)) {}

  File file_;
  uint32_t version_ = 0;
  GgufMetadata metadata_;
  std::map<std::string, TensorInfo> tensors_;
  uint64_t header_checksum_ = 0;
};

// All files of a model that was split as NAME-00001-of-00003.gguf, in order;
// one that was not gives itself. `path` may be any of them. NotFound names the
// missing one.
absl::StatusOr<std::vector<GgufFile>> OpenGgufSplit(
    const std::filesystem::path& path);

}  // namespace bullpen
