#include "engine/model/gguf.h"

#include <algorithm>
#include <bit>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/config_fields.h"
#include "kernels/block_format.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kDefaultAlignment = 32;
constexpr int64_t kAlignmentLimit = int64_t{1} << 24;
constexpr int64_t kSplitLimit = 1024;

absl::Status BadFile(const fs::path& path, const absl::AlphaNum& what) {
  return absl::DataLossError(absl::StrCat(path.string(), ": ", what));
}

absl::Status BadTensor(const fs::path& path, const std::string& name,
                       const absl::AlphaNum& what) {
  return BadFile(path, absl::StrCat("tensor '", Printable(name), "' ", what));
}

// An integer of the metadata, `otherwise` if it is absent.
absl::StatusOr<int64_t> Integer(const fs::path& path,
                                const GgufMetadata& metadata,
                                const std::string& key, int64_t otherwise) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return otherwise;
  if (const int64_t* value = std::get_if<int64_t>(&found->second)) {
    return *value;
  }
  return BadFile(path,
                 absl::StrCat(key, " is ", Absl(GgufTypeName(found->second)),
                              " instead of an integer"));
}

absl::StatusOr<int64_t> Alignment(const fs::path& path,
                                  const GgufMetadata& metadata) {
  ASSIGN_OR_RETURN(
      const int64_t alignment,
      Integer(path, metadata, "general.alignment", kDefaultAlignment));
  if (alignment < 1 || alignment > kAlignmentLimit ||
      !std::has_single_bit(static_cast<uint64_t>(alignment))) {
    return BadFile(
        path, absl::StrCat("general.alignment = ", alignment,
                           " is not a power of two up to ", kAlignmentLimit));
  }
  return alignment;
}

// The tensor as the rest of the program sees it, its bytes checked against
// its shape; offsets are still from the data section.
absl::StatusOr<TensorInfo> Checked(const fs::path& path,
                                   const GgufHeaderTensor& tensor) {
  const kernels::BlockFormat* format =
      kernels::FindBlockFormat(int64_t{tensor.type});
  if (format == nullptr) {
    std::vector<std::string> known;
    for (const kernels::BlockFormat& row : kernels::BlockFormats()) {
      if (row.readable()) known.emplace_back(row.name);
    }
    return BadTensor(
        path, tensor.name,
        absl::StrCat("is of the unknown type ", tensor.type, "; supported are ",
                     absl::StrJoin(known, ", ")));
  }
  const std::string shape = absl::StrCat("has the dimensions [",
                                         absl::StrJoin(tensor.dims, ", "), "]");
  uint64_t elements = 1;
  for (const uint64_t dim : tensor.dims) {
    if (dim == 0 || __builtin_mul_overflow(elements, dim, &elements) ||
        elements > static_cast<uint64_t>(INT64_MAX) / 8) {
      return BadTensor(path, tensor.name,
                       absl::StrCat(shape,
                                    ", whose product is 0 or exceeds "
                                    "2^60"));
    }
  }
  if (tensor.dims[0] % static_cast<uint64_t>(format->elements) != 0) {
    return BadTensor(
        path, tensor.name,
        absl::StrCat(shape, ", but rows of ", Absl(format->name),
                     " have a multiple of ", format->elements, " elements"));
  }
  TensorInfo info;
  info.dtype = format->name;
  info.shape.assign(tensor.dims.rbegin(), tensor.dims.rend());
  info.bytes = format->RowBytes(static_cast<int64_t>(elements));
  return info;
}

// Tensors may stand in any order, with gaps between them.
absl::Status CheckOverlaps(const fs::path& path,
                           const std::map<std::string, TensorInfo>& tensors) {
  std::vector<std::pair<const TensorInfo*, const std::string*>> sorted;
  for (const auto& [name, info] : tensors) sorted.emplace_back(&info, &name);
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.first->offset < b.first->offset;
  });
  for (size_t i = 1; i < sorted.size(); ++i) {
    const TensorInfo& last = *sorted[i - 1].first;
    if (sorted[i].first->offset < last.offset + last.bytes) {
      return BadTensor(
          path, *sorted[i].second,
          absl::StrCat("begins at byte ", sorted[i].first->offset,
                       " and overlaps tensor '",
                       Printable(*sorted[i - 1].second), "', which ends at ",
                       last.offset + last.bytes));
    }
  }
  return absl::OkStatus();
}

// NAME-00002-of-00003.gguf -> NAME; nothing if the name is not of that form.
absl::StatusOr<std::string> SplitPrefix(const GgufFile& file, int64_t number,
                                        int64_t count) {
  const std::string name = file.path().filename().string();
  const std::string ending =
      absl::StrFormat("-%05d-of-%05d.gguf", number, count);
  if (!name.ends_with(ending)) {
    return BadFile(file.path(),
                   absl::StrCat("is part ", number, " of ", count,
                                " by its metadata; its name must end in ",
                                ending, " for the others to be found"));
  }
  return name.substr(0, name.size() - ending.size());
}

}  // namespace

bool LooksLikeGguf(const fs::path& path) {
  absl::StatusOr<File> file = File::OpenForRead(path);
  char magic[4] = {};
  return file.ok() &&
         file->ReadAt(0, std::as_writable_bytes(std::span(magic))).ok() &&
         std::string_view(magic, 4) == "GGUF";
}

absl::StatusOr<GgufFile> GgufFile::Open(const fs::path& path) {
  ASSIGN_OR_RETURN(File opened, File::OpenForRead(path));
  GgufFile file(std::move(opened));
  ASSIGN_OR_RETURN(GgufHeader header, ReadGgufHeader(file.file_));
  file.version_ = header.version;
  file.header_checksum_ = header.checksum;
  file.metadata_ = std::move(header.metadata);
  ASSIGN_OR_RETURN(const int64_t alignment, Alignment(path, file.metadata_));
  const int64_t data = (header.bytes + alignment - 1) / alignment * alignment;
  const int64_t size = std::max<int64_t>(file.file_.size() - data, 0);
  for (const GgufHeaderTensor& tensor : header.tensors) {
    ASSIGN_OR_RETURN(TensorInfo info, Checked(path, tensor));
    if (tensor.offset % static_cast<uint64_t>(alignment) != 0) {
      return BadTensor(path, tensor.name,
                       absl::StrCat("begins at byte ", tensor.offset,
                                    " of the data, which is not a multiple "
                                    "of the alignment ",
                                    alignment));
    }
    if (tensor.offset > static_cast<uint64_t>(size) ||
        info.bytes > size - static_cast<int64_t>(tensor.offset)) {
      return BadTensor(path, tensor.name,
                       absl::StrCat("begins at byte ", tensor.offset,
                                    " of the data and has ", info.bytes,
                                    " bytes, but the file has only ", size,
                                    " bytes of data (truncated?)"));
    }
    info.offset = data + static_cast<int64_t>(tensor.offset);
    if (!file.tensors_.emplace(tensor.name, std::move(info)).second) {
      return BadTensor(path, tensor.name, "stands in the header twice");
    }
  }
  RETURN_IF_ERROR(CheckOverlaps(path, file.tensors_));
  return file;
}

absl::StatusOr<std::vector<GgufFile>> OpenGgufSplit(const fs::path& path) {
  ASSIGN_OR_RETURN(GgufFile given, GgufFile::Open(path));
  ASSIGN_OR_RETURN(const int64_t count,
                   Integer(path, given.metadata(), "split.count", 1));
  ASSIGN_OR_RETURN(const int64_t given_no,
                   Integer(path, given.metadata(), "split.no", 0));
  std::vector<GgufFile> files;
  if (count <= 1) {
    files.push_back(std::move(given));
    return files;
  }
  if (count > kSplitLimit || given_no < 0 || given_no >= count) {
    return BadFile(path, absl::StrCat("split.no = ", given_no,
                                      " and split.count = ", count,
                                      "; the limit is ", kSplitLimit));
  }
  ASSIGN_OR_RETURN(const std::string prefix,
                   SplitPrefix(given, given_no + 1, count));
  int64_t tensors = 0;
  for (int64_t i = 0; i < count; ++i) {
    const fs::path part =
        path.parent_path() /
        absl::StrFormat("%s-%05d-of-%05d.gguf", prefix, i + 1, count);
    absl::StatusOr<GgufFile> file = GgufFile::Open(part);
    if (absl::IsNotFound(file.status())) {
      return absl::NotFoundError(
          absl::StrCat(path.string(), " is one of ", count, " files, of which ",
                       part.filename().string(), " is not there"));
    }
    RETURN_IF_ERROR(file.status());
    ASSIGN_OR_RETURN(const int64_t number,
                     Integer(part, file->metadata(), "split.no", -1));
    ASSIGN_OR_RETURN(const int64_t of,
                     Integer(part, file->metadata(), "split.count", -1));
    if (number != i || of != count) {
      return BadFile(part, absl::StrCat("says it is part ", number + 1, " of ",
                                        of, ", its name says otherwise"));
    }
    tensors += static_cast<int64_t>(file->tensors().size());
    files.push_back(*std::move(file));
  }
  ASSIGN_OR_RETURN(const int64_t expected,
                   Integer(files.front().path(), files.front().metadata(),
                           "split.tensors.count", tensors));
  if (expected != tensors) {
    return BadFile(
        files.front().path(),
        absl::StrCat("split.tensors.count = ", expected, ", but the ", count,
                     " files have ", tensors, " tensors"));
  }
  return files;
}

}  // namespace bullpen
