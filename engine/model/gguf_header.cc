#include "engine/model/gguf_header.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "base/xxh3.h"
#include "engine/model/config_fields.h"

namespace bullpen {
namespace {

static_assert(std::endian::native == std::endian::little,
              "GGUF files are little-endian, and are read as they are");

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kKeyLimit = 65535;    // the format's own
constexpr uint32_t kDimsLimit = 4;       // GGML's own
// The largest vocabularies take some 30 MiB.
constexpr int64_t kHeaderLimit = int64_t{1} << 30;
constexpr int64_t kChunkBytes = int64_t{1} << 20;

// Value types by their number in the file.
enum Type : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
  kTypes
};
// Bytes that a value of each type takes at least.
constexpr uint64_t kTypeBytes[kTypes] = {1, 1, 2,  2, 4, 4, 4,
                                         1, 8, 12, 8, 8, 8};

// Reads a file from the start on, in large pieces.
class Reader {
 public:
  explicit Reader(const File& file) : file_(file) { XXH3_64bits_reset(&hash_); }

  int64_t offset() const { return offset_; }
  // Bytes that a header may still have.
  uint64_t rest() const {
    return static_cast<uint64_t>(std::min(file_.size(), kHeaderLimit) -
                                 offset_);
  }
  uint64_t checksum() const { return XXH3_64bits_digest(&hash_); }

  absl::Status Bad(const absl::AlphaNum& what) const {
    return absl::DataLossError(absl::StrCat(file_.path().string(), ": ", what));
  }

  absl::Status Read(std::span<std::byte> out) {
    if (out.size() > rest()) {
      return Bad(absl::StrCat("its header needs ", out.size(),
                              " bytes at byte ", offset_, ", but only ", rest(),
                              " of the file, or of the limit of ", kHeaderLimit,
                              ", are left (truncated?)"));
    }
    while (!out.empty()) {
      if (at_ == buffer_.size()) RETURN_IF_ERROR(Fill());
      const size_t count = std::min(out.size(), buffer_.size() - at_);
      std::memcpy(out.data(), buffer_.data() + at_, count);
      XXH3_64bits_update(&hash_, buffer_.data() + at_, count);
      at_ += count;
      offset_ += static_cast<int64_t>(count);
      out = out.subspan(count);
    }
    return absl::OkStatus();
  }

  template <typename T>
  absl::StatusOr<T> Number() {
    T value;
    RETURN_IF_ERROR(Read(std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }

  absl::StatusOr<std::string> String(uint64_t limit) {
    ASSIGN_OR_RETURN(const uint64_t length, Number<uint64_t>());
    if (length > std::min(limit, rest())) {
      return Bad(absl::StrCat("has a string of ", length, " bytes at byte ",
                              offset_ - 8, "; the limit is ", limit, " and ",
                              rest(), " bytes follow"));
    }
    std::string text(length, '\0');
    RETURN_IF_ERROR(Read(std::as_writable_bytes(std::span(text))));
    return text;
  }

 private:
  absl::Status Fill() {
    buffer_.resize(
        static_cast<size_t>(std::min(kChunkBytes, file_.size() - offset_)));
    at_ = 0;
    return file_.ReadAt(offset_, buffer_);
  }

  const File& file_;
  XXH3_state_t hash_;
  std::vector<std::byte> buffer_;
  size_t at_ = 0;       // in the buffer
  int64_t offset_ = 0;  // in the file, of what is read next
};

template <typename T>
absl::StatusOr<int64_t> WideInteger(Reader& reader) {
  ASSIGN_OR_RETURN(const T value, reader.Number<T>());
  if constexpr (std::is_same_v<T, uint64_t>) {
    if (value > INT64_MAX) {
      return reader.Bad(
          absl::StrCat("has the number ", value, ", which exceeds 2^63"));
    }
  }
  return static_cast<int64_t>(value);
}

absl::StatusOr<int64_t> ReadInteger(Reader& reader, uint32_t type) {
  switch (type) {
    case kU8:
    case kBool:
      return WideInteger<uint8_t>(reader);
    case kI8:
      return WideInteger<int8_t>(reader);
    case kU16:
      return WideInteger<uint16_t>(reader);
    case kI16:
      return WideInteger<int16_t>(reader);
    case kU32:
      return WideInteger<uint32_t>(reader);
    case kI32:
      return WideInteger<int32_t>(reader);
    case kU64:
      return WideInteger<uint64_t>(reader);
    default:
      return WideInteger<int64_t>(reader);
  }
}

absl::StatusOr<double> ReadFloat(Reader& reader, uint32_t type) {
  if (type == kF64) return reader.Number<double>();
  ASSIGN_OR_RETURN(const float value, reader.Number<float>());
  return double{value};
}

template <typename T, typename ReadOne>
absl::StatusOr<GgufValue> ReadList(uint64_t count, ReadOne read_one) {
  std::vector<T> values;
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(T value, read_one());
    values.push_back(std::move(value));
  }
  return GgufValue(std::move(values));
}

absl::StatusOr<GgufValue> ReadArray(Reader& reader) {
  ASSIGN_OR_RETURN(const uint32_t type, reader.Number<uint32_t>());
  ASSIGN_OR_RETURN(const uint64_t count, reader.Number<uint64_t>());
  if (type >= kTypes || type == kArray) {
    return reader.Bad(absl::StrCat("has an array of elements of type ", type,
                                   "; 0 to 8 and 10 to 12 are supported"));
  }
  if (count > reader.rest() / kTypeBytes[type]) {
    return reader.Bad(absl::StrCat("has an array of ", count,
                                   " elements of type ", type, ", but only ",
                                   reader.rest(), " bytes follow"));
  }
  if (type == kString) {
    return ReadList<std::string>(count,
                                 [&] { return reader.String(reader.rest()); });
  }
  if (type == kF32 || type == kF64) {
    return ReadList<double>(count, [&] { return ReadFloat(reader, type); });
  }
  return ReadList<int64_t>(count, [&] { return ReadInteger(reader, type); });
}

absl::StatusOr<GgufValue> ReadValue(Reader& reader) {
  ASSIGN_OR_RETURN(const uint32_t type, reader.Number<uint32_t>());
  switch (type) {
    case kString: {
      ASSIGN_OR_RETURN(std::string text, reader.String(reader.rest()));
      return GgufValue(std::move(text));
    }
    case kArray:
      return ReadArray(reader);
    case kF32:
    case kF64: {
      ASSIGN_OR_RETURN(const double value, ReadFloat(reader, type));
      return GgufValue(value);
    }
    case kBool: {
      ASSIGN_OR_RETURN(const int64_t value, ReadInteger(reader, type));
      return GgufValue(value != 0);
    }
    default:
      if (type >= kTypes) {
        return reader.Bad(absl::StrCat("has the unknown value type ", type,
                                       "; 0 to 12 are known"));
      }
      ASSIGN_OR_RETURN(const int64_t value, ReadInteger(reader, type));
      return GgufValue(value);
  }
}

absl::Status Within(const std::string& what, const std::string& name,
                    const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(status.message(), " (", what,
                                                  " '", Printable(name), "')"));
}

absl::Status ReadMetadata(Reader& reader, uint64_t count,
                          GgufMetadata& metadata) {
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(std::string key, reader.String(kKeyLimit));
    absl::StatusOr<GgufValue> value = ReadValue(reader);
    if (!value.ok()) return Within("metadata key", key, value.status());
    if (!metadata.emplace(key, *std::move(value)).second) {
      return reader.Bad(
          absl::StrCat("has the metadata key '", Printable(key), "' twice"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<GgufHeaderTensor> ReadTensor(Reader& reader) {
  GgufHeaderTensor tensor;
  ASSIGN_OR_RETURN(tensor.name, reader.String(kKeyLimit));
  ASSIGN_OR_RETURN(const uint32_t dims, reader.Number<uint32_t>());
  if (dims < 1 || dims > kDimsLimit) {
    return reader.Bad(absl::StrCat("tensor '", Printable(tensor.name), "' has ",
                                   dims, " dimensions; 1 to ", kDimsLimit,
                                   " are allowed"));
  }
  tensor.dims.resize(dims);
  const std::span<uint64_t> all(tensor.dims);
  absl::Status read = reader.Read(std::as_writable_bytes(all));
  if (!read.ok()) return Within("tensor", tensor.name, read);
  ASSIGN_OR_RETURN(tensor.type, reader.Number<uint32_t>());
  ASSIGN_OR_RETURN(tensor.offset, reader.Number<uint64_t>());
  return tensor;
}

absl::Status CheckVersion(const Reader& reader, uint32_t magic,
                          uint32_t version) {
  if (magic != kMagic) {
    return reader.Bad("does not begin with 'GGUF'");
  }
  if (version == 2 || version == 3) return absl::OkStatus();
  const bool swapped = (version & 0xFFFF) == 0;
  return reader.Bad(absl::StrCat(
      swapped ? "is big-endian, or of version " : "is of version ", version,
      "; little-endian files of versions 2 and 3 are supported"));
}

}  // namespace

std::string_view GgufTypeName(const GgufValue& value) {
  constexpr std::string_view kNames[] = {
      "a boolean",          "an integer",           "a number",
      "a string",           "an array of integers", "an array of numbers",
      "an array of strings"};
  return kNames[value.index()];
}

absl::StatusOr<GgufHeader> ReadGgufHeader(const File& file) {
  Reader reader(file);
  GgufHeader header;
  ASSIGN_OR_RETURN(const uint32_t magic, reader.Number<uint32_t>());
  ASSIGN_OR_RETURN(header.version, reader.Number<uint32_t>());
  RETURN_IF_ERROR(CheckVersion(reader, magic, header.version));
  ASSIGN_OR_RETURN(const uint64_t tensors, reader.Number<uint64_t>());
  ASSIGN_OR_RETURN(const uint64_t keys, reader.Number<uint64_t>());
  // A key has at least a length, a type and a byte; a tensor a length, the
  // number of dimensions, one of them, a type and an offset.
  constexpr uint64_t kLeastKey = 13;
  constexpr uint64_t kLeastTensor = 32;
  if (keys > reader.rest() / kLeastKey ||
      tensors > reader.rest() / kLeastTensor) {
    return reader.Bad(absl::StrCat("says it has ", keys, " metadata keys and ",
                                   tensors, " tensors, but only ",
                                   reader.rest(), " bytes follow"));
  }
  RETURN_IF_ERROR(ReadMetadata(reader, keys, header.metadata));
  for (uint64_t i = 0; i < tensors; ++i) {
    ASSIGN_OR_RETURN(GgufHeaderTensor tensor, ReadTensor(reader));
    header.tensors.push_back(std::move(tensor));
  }
  header.bytes = reader.offset();
  header.checksum = reader.checksum();
  return header;
}

}  // namespace bullpen
