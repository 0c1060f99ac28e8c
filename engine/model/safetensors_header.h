#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bullpen {

// What a safetensors header says of one tensor; nothing of it is checked
// against the file yet.
struct HeaderTensor {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  uint64_t begin = 0;  // data_offsets
  uint64_t end = 0;
};

// Reads the header in one pass, without a document in memory: it takes at most
// about 20 times the header's bytes. DataLoss names `where`, the tensor and
// what is wrong with it: a name twice, a missing or unknown field, a type.
absl::StatusOr<std::vector<HeaderTensor>> ParseSafetensorsHeader(
    std::string_view header, std::string_view where);

}  // namespace bullpen
