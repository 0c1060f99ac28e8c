#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace bullpen {

// What became of one matrix, or of the same matrix of all of a layer's
// experts.
struct PackedTensor {
  std::string name = {};  // "layers.3.qkv", "layers.3.experts.down"
  std::string from =
      {};               // type of the source; "BF16+Q8_0" if stacked of several
  std::string to = {};  // type in the packed model
  std::string reason =
      {};  // why not the source's or the asked type; may be empty
  int64_t weights = 0;
  int64_t source_bytes = 0;
  int64_t packed_bytes = 0;
  // Sums over what was quantised; with a calibration text also of squares
  // times the importance of their columns.
  double squared_error = 0;
  double squares = 0;
  double weighted_error = 0;
  double weighted_squares = 0;

  // Adds another's counts and sums.
  void Add(const PackedTensor& other);
  // Roots of the mean squared error relative to that of the weights.
  double relative_error() const;
  double relative_weighted_error() const;
};

// What `bullpen pack` says of its work.
struct PackReport {
  std::vector<PackedTensor> tensors;  // matrices, in the order of the files

  // A line for each kind of matrix ("qkv" of all layers), its types and the
  // reason: tensors, weights, size before and after, bits for each weight,
  // error. Then the sum, and what would make the model smaller.
  std::string ToText() const;
  // {"tensors": [...], "kinds": [...]} with the same fields.
  nlohmann::ordered_json ToJson() const;
};

}  // namespace bullpen
