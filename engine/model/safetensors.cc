#include "engine/model/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/xxh3.h"
#include "engine/model/config_fields.h"
#include "engine/model/safetensors_header.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

static_assert(std::endian::native == std::endian::little,
              "safetensors files are little-endian, and are read as they are");

constexpr int64_t kLengthBytes = 8;

struct DTypeRow {
  std::string_view name;
  int64_t bytes;
};
constexpr DTypeRow kDTypes[] = {
    {"BOOL", 1},    {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
    {"F8_E8M0", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},     {"BF16", 2},
    {"I32", 4},     {"U32", 4}, {"F32", 4}, {"I64", 8},     {"U64", 8},
    {"F64", 8},     {"C64", 8}};

absl::Status BadFile(const std::filesystem::path& path,
                     const absl::AlphaNum& what) {
  return absl::DataLossError(absl::StrCat(path.string(), ": ", what));
}

absl::Status BadTensor(const std::filesystem::path& path,
                       const std::string& name, const absl::AlphaNum& what) {
  return BadFile(path, absl::StrCat("tensor '", Printable(name), "' ", what));
}

// Size of the tensor by its type and shape, or why there is none.
absl::StatusOr<int64_t> CheckedBytes(const std::filesystem::path& path,
                                     const HeaderTensor& tensor) {
  const std::optional<int64_t> element = ElementBytes(tensor.dtype);
  if (!element.has_value()) {
    std::vector<std::string> known;
    for (const DTypeRow& row : kDTypes) known.emplace_back(row.name);
    return BadTensor(
        path, tensor.name,
        absl::StrCat("has the unknown dtype '", Printable(tensor.dtype),
                     "'; known are ", absl::StrJoin(known, ", ")));
  }
  uint64_t bytes = static_cast<uint64_t>(*element);
  for (const uint64_t dim : tensor.shape) {
    if (__builtin_mul_overflow(bytes, dim, &bytes) || bytes > INT64_MAX) {
      return BadTensor(
          path, tensor.name,
          absl::StrCat("has the shape [", absl::StrJoin(tensor.shape, ", "),
                       "], whose size exceeds 2^63 bytes"));
    }
  }
  return static_cast<int64_t>(bytes);
}

// Tensors sorted by offset must fill the data section exactly.
absl::Status CheckCoverage(const std::filesystem::path& path,
                           std::vector<HeaderTensor>& tensors,
                           uint64_t data_bytes) {
  std::sort(tensors.begin(), tensors.end(),
            [](const HeaderTensor& a, const HeaderTensor& b) {
              return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
            });
  uint64_t covered = 0;
  std::string last;
  for (const HeaderTensor& tensor : tensors) {
    if (tensor.begin < covered) {
      return BadTensor(
          path, tensor.name,
          absl::StrCat("begins at byte ", tensor.begin,
                       " of the data and overlaps tensor '", Printable(last),
                       "', which ends at ", covered));
    }
    if (tensor.begin > covered) {
      return BadTensor(
          path, tensor.name,
          absl::StrCat("begins at byte ", tensor.begin,
                       " of the data, which leaves a hole of ",
                       tensor.begin - covered, " bytes after ", covered));
    }
    covered = tensor.end;
    last = tensor.name;
  }
  if (covered != data_bytes) {
    return BadFile(path, absl::StrCat("has ", data_bytes - covered,
                                      " bytes after the last tensor, which "
                                      "ends at byte ",
                                      covered, " of the data"));
  }
  return absl::OkStatus();
}

absl::Status CheckTensor(const std::filesystem::path& path,
                         const HeaderTensor& tensor, uint64_t data_bytes) {
  ASSIGN_OR_RETURN(const int64_t bytes, CheckedBytes(path, tensor));
  const std::string span =
      absl::StrCat("has data_offsets [", tensor.begin, ", ", tensor.end, "]");
  if (tensor.begin > tensor.end) {
    return BadTensor(path, tensor.name,
                     absl::StrCat(span, ", which end before they begin"));
  }
  if (tensor.end > data_bytes) {
    return BadTensor(path, tensor.name,
                     absl::StrCat(span, ", but the file has only ", data_bytes,
                                  " bytes of data (truncated?)"));
  }
  if (tensor.end - tensor.begin != static_cast<uint64_t>(bytes)) {
    return BadTensor(
        path, tensor.name,
        absl::StrCat(span, " (", tensor.end - tensor.begin,
                     " bytes), but its shape [",
                     absl::StrJoin(tensor.shape, ", "), "] and dtype ",
                     tensor.dtype, " need ", bytes, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<int64_t> ElementBytes(std::string_view dtype) {
  for (const DTypeRow& row : kDTypes) {
    if (row.name == dtype) return row.bytes;
  }
  return std::nullopt;
}

std::string TensorInfo::ShapeText() const {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(
    const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(File opened, File::OpenForRead(path));
  SafetensorsFile file(std::move(opened));
  const int64_t size = file.size();
  if (size < kLengthBytes) {
    return BadFile(path, absl::StrCat("has ", size,
                                      " bytes, fewer than the 8 that a "
                                      "safetensors file begins with"));
  }
  uint64_t length = 0;
  RETURN_IF_ERROR(
      file.file_.ReadAt(0, std::as_writable_bytes(std::span(&length, 1))));
  if (length > static_cast<uint64_t>(kSafetensorsHeaderLimit)) {
    return BadFile(
        path, absl::StrCat("says its header has ", length,
                           " bytes; the limit is ", kSafetensorsHeaderLimit));
  }
  if (length > static_cast<uint64_t>(size - kLengthBytes)) {
    return BadFile(
        path, absl::StrCat("says its header has ", length, " bytes, but only ",
                           size - kLengthBytes, " follow (truncated?)"));
  }
  std::string header(length, '\0');
  RETURN_IF_ERROR(file.file_.ReadAt(kLengthBytes,
                                    std::as_writable_bytes(std::span(header))));
  file.header_checksum_ = XXH3_64bits(header.data(), header.size());
  file.data_offset_ = kLengthBytes + static_cast<int64_t>(length);
  const uint64_t data_bytes = static_cast<uint64_t>(size - file.data_offset_);

  ASSIGN_OR_RETURN(std::vector<HeaderTensor> tensors,
                   ParseSafetensorsHeader(header, path.string()));
  for (const HeaderTensor& tensor : tensors) {
    RETURN_IF_ERROR(CheckTensor(path, tensor, data_bytes));
  }
  RETURN_IF_ERROR(CheckCoverage(path, tensors, data_bytes));
  for (HeaderTensor& tensor : tensors) {
    file.tensors_.emplace(
        std::move(tensor.name),
        TensorInfo{
            .dtype = std::move(tensor.dtype),
            .shape = {tensor.shape.begin(), tensor.shape.end()},
            .offset = file.data_offset_ + static_cast<int64_t>(tensor.begin),
            .bytes = static_cast<int64_t>(tensor.end - tensor.begin)});
  }
  return file;
}

absl::Status SafetensorsFile::Read(const TensorInfo& tensor, int64_t begin,
                                   std::span<std::byte> out) const {
  CHECK(begin >= 0 && begin + static_cast<int64_t>(out.size()) <= tensor.bytes)
      << "read of " << out.size() << " bytes at " << begin << " of a tensor of "
      << tensor.bytes;
  return file_.ReadAt(tensor.offset + begin, out);
}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(
    const std::filesystem::path& path, const std::vector<Tensor>& tensors,
    int64_t alignment) {
  // Ordered, so that names stand in the header as their data in the file.
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  header["__metadata__"] = {{"format", "bullpen"}};
  int64_t end = 0;
  for (const Tensor& tensor : tensors) {
    const std::optional<int64_t> element = ElementBytes(tensor.dtype);
    CHECK(element.has_value()) << "dtype " << tensor.dtype;
    int64_t bytes = *element;
    for (const int64_t dim : tensor.shape) bytes *= dim;
    header.push_back({tensor.name,
                      {{"dtype", tensor.dtype},
                       {"shape", tensor.shape},
                       {"data_offsets", {end, end + bytes}}}});
    end += bytes;
  }
  std::string text = header.dump();
  const int64_t unpadded = kLengthBytes + static_cast<int64_t>(text.size());
  const int64_t data = (unpadded + alignment - 1) / alignment * alignment;
  text.append(static_cast<size_t>(data - unpadded), ' ');

  ASSIGN_OR_RETURN(std::unique_ptr<DirectWriter> file,
                   DirectWriter::Create(path, data + end));
  const uint64_t length = text.size();
  RETURN_IF_ERROR(file->Append(std::as_bytes(std::span(&length, 1))));
  RETURN_IF_ERROR(file->Append(std::as_bytes(std::span(text))));
  return SafetensorsWriter(std::move(file));
}

absl::StatusOr<std::span<std::byte>> SafetensorsWriter::Room(int64_t bytes) {
  return file_->Room(bytes);
}

absl::Status SafetensorsWriter::Commit() { return file_->Commit(); }

absl::Status SafetensorsWriter::Append(std::span<const std::byte> bytes) {
  return file_->Append(bytes);
}

absl::Status SafetensorsWriter::Finish() { return file_->Finish(); }

}  // namespace bullpen
