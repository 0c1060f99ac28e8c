#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "base/file.h"

namespace bullpen {

// A metadata value of a GGUF file: integers and floats of every width are
// widened, and so are those in arrays (booleans to integers).
using GgufValue =
    std::variant<bool, int64_t, double, std::string, std::vector<int64_t>,
                 std::vector<double>, std::vector<std::string>>;
using GgufMetadata = std::map<std::string, GgufValue>;

// "an integer", "an array of strings".
std::string_view GgufTypeName(const GgufValue& value);

// What a GGUF header says of one tensor; only lengths and counts have been
// checked yet.
struct GgufHeaderTensor {
  std::string name;
  std::vector<uint64_t> dims;  // the first runs fastest
  uint32_t type = 0;
  uint64_t offset = 0;  // from the data section
};

struct GgufHeader {
  uint32_t version = 0;
  GgufMetadata metadata;
  std::vector<GgufHeaderTensor> tensors;
  int64_t bytes = 0;      // up to the end of the tensor list
  uint64_t checksum = 0;  // XXH3_64bits of those bytes
};

// Reads the header of a GGUF file, version 2 or 3, little-endian. Every length
// and count is held against what is left of the file, and against
// 1 GiB, before memory is taken for it: at most about 32 times the header's
// bytes. DataLoss names the file, the key or tensor, the value and the limit.
absl::StatusOr<GgufHeader> ReadGgufHeader(const File& file);

}  // namespace bullpen
