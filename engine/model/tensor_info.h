#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bullpen {

// A tensor of a weights file.
struct TensorInfo {
  std::string dtype;           // as the file's format calls it
  std::vector<int64_t> shape;  // row-major: the last runs fastest
  int64_t offset = 0;          // from the start of the file
  int64_t bytes = 0;

  std::string ShapeText() const;  // "[8, 64]"
};

}  // namespace bullpen
