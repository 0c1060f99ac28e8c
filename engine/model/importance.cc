#include "engine/model/importance.h"

#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/strings.h"
#include "base/xxh3.h"

namespace bullpen {
namespace {

// So many rows of average squares are added to those that were seen.
constexpr double kPriorRows = 16;

std::string NameOf(const MatrixInput& input) {
  if (input.layer < 0) return std::string(input.matrix);
  if (input.expert >= 0) {
    return Importance::ExpertMatrix(input.layer, input.expert, input.matrix);
  }
  return absl::StrCat("layers.", input.layer, ".", Absl(input.matrix));
}

}  // namespace

std::string Importance::ExpertMatrix(int32_t layer, int32_t expert,
                                     std::string_view matrix) {
  return absl::StrCat("layers.", layer, ".", Absl(matrix), ".", expert);
}

void Importance::Add(const MatrixInput& input) {
  Sums& sums = sums_[NameOf(input)];
  sums.squares.resize(static_cast<size_t>(input.cols));
  sums.rows += input.rows;
  for (int64_t r = 0; r < input.rows; ++r) {
    const int64_t row = input.x_row != nullptr ? input.x_row[r] : r;
    const float* x = input.x + row * input.x_stride;
    for (size_t c = 0; c < sums.squares.size(); ++c) {
      sums.squares[c] += double{x[c]} * x[c];
    }
  }
}

std::vector<float> Importance::Of(const std::string& matrix) const {
  // The gate's input is that of up, too.
  constexpr std::string_view kSharedUp = "shared_up";
  std::string name = matrix;
  if (name.ends_with(kSharedUp)) {
    name.replace(name.size() - kSharedUp.size(), kSharedUp.size(),
                 "shared_gate");
  }
  const auto found = sums_.find(name);
  if (found == sums_.end()) return {};
  const Sums& sums = found->second;
  const double average =
      std::accumulate(sums.squares.begin(), sums.squares.end(), 0.0) /
      static_cast<double>(sums.squares.size());
  if (!std::isnormal(average)) return {};
  const double prior = kPriorRows / static_cast<double>(sums.rows);
  std::vector<float> result;
  result.reserve(sums.squares.size());
  for (const double square : sums.squares) {
    result.push_back(
        static_cast<float>((square / average + prior) / (1 + prior)));
  }
  return result;
}

int64_t Importance::experts() const {
  int64_t count = 0;
  for (const auto& [name, sums] : sums_) {
    count += name.find(".experts.gate.") != std::string::npos;
  }
  return count;
}

std::string Importance::Digest() const {
  uint64_t digest = 0;
  for (const auto& [name, sums] : sums_) {
    digest = XXH3_64bits_withSeed(name.data(), name.size(), digest);
    digest = XXH3_64bits_withSeed(sums.squares.data(),
                                  sums.squares.size() * sizeof(double), digest);
  }
  return absl::StrCat(absl::Hex(digest, absl::kZeroPad16));
}

}  // namespace bullpen
