#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/pass.h"

namespace bullpen {

// How much each column of a model's matrices counts, gathered from the inputs
// that a text gives them (ForwardTap::input): quantising spends its error where
// inputs are small. Empty: nothing is known. One thread.
class Importance {
 public:
  void Add(const MatrixInput& input);

  // Mean squares of the columns' inputs, relative to the matrix's average. A
  // column that few rows have shown is drawn to that. Empty: no row has reached
  // the matrix, such as those of an expert that no token called.
  // `matrix` is the name of a resident tensor, or what ExpertMatrix gives.
  std::vector<float> Of(const std::string& matrix) const;
  static std::string ExpertMatrix(int32_t layer, int32_t expert,
                                  std::string_view matrix);

  bool empty() const { return sums_.empty(); }
  // Experts that tokens have called.
  int64_t experts() const;
  // 16 hex digits over all that it knows; packed models tell by it what they
  // were made with.
  std::string Digest() const;

 private:
  struct Sums {
    int64_t rows = 0;
    std::vector<double> squares;  // by column
  };
  std::map<std::string, Sums> sums_;
};

}  // namespace bullpen
