#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/direct_writer.h"
#include "base/file.h"
#include "engine/model/tensor_info.h"

namespace bullpen {

// The format's own limit on its JSON header.
inline constexpr int64_t kSafetensorsHeaderLimit = 100'000'000;

// Bytes of one element of a safetensors type ("BF16"); nothing if unknown.
std::optional<int64_t> ElementBytes(std::string_view dtype);

// A safetensors file whose header has been checked to the letter: its size and
// JSON, every type, shape, size and offset; tensors fill the data section
// without overlap, hole or rest. Reads with pread, never maps. Any thread.
class SafetensorsFile {
 public:
  // DataLoss names the file, the tensor, the value and the limit.
  static absl::StatusOr<SafetensorsFile> Open(
      const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  int64_t data_offset() const { return data_offset_; }
  int64_t size() const { return file_.size(); }
  uint64_t header_checksum() const { return header_checksum_; }

  // The open file, for who has taken the rest.
  File TakeFile() && { return std::move(file_); }

  // Fills `out` from byte `begin` of the tensor on; CHECKs the range.
  absl::Status Read(const TensorInfo& tensor, int64_t begin,
                    std::span<std::byte> out) const;

 private:
  explicit SafetensorsFile(File file) : file_(std::move(file)) {}

  File file_;
  std::map<std::string, TensorInfo> tensors_;
  int64_t data_offset_ = 0;
  uint64_t header_checksum_ = 0;  // XXH3_64bits of the JSON
};

// Writes one file front to back, by a DirectWriter: first the header, whose
// sizes follow from the shapes, then the data.
class SafetensorsWriter {
 public:
  struct Tensor {
    std::string name;
    std::string dtype;
    std::vector<int64_t> shape;
  };

  // Creates the file and writes the header, padded with spaces so that the
  // data section starts at a multiple of `alignment`.
  static absl::StatusOr<SafetensorsWriter> Create(
      const std::filesystem::path& path, const std::vector<Tensor>& tensors,
      int64_t alignment);

  // The next bytes of the data section, tensors in the order given to Create;
  // see DirectWriter.
  absl::StatusOr<std::span<std::byte>> Room(int64_t bytes);
  absl::Status Commit();
  absl::Status Append(std::span<const std::byte> bytes);
  // Syncs; CHECKs that all bytes were written.
  absl::Status Finish();

 private:
  explicit SafetensorsWriter(std::unique_ptr<DirectWriter> file)
      : file_(std::move(file)) {}

  std::unique_ptr<DirectWriter> file_;
};

}  // namespace bullpen
