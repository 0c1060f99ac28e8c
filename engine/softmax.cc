#include "engine/softmax.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>

namespace bullpen {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Independent lanes, so that the compiler uses vectors and the order of every
// sum is fixed.
constexpr size_t kLanes = 16;

// exp(x) for x <= 0 by range reduction and a polynomial (relative error about
// 1e-7); 0 below -86 and for NaN. Branch-free. libm's own would differ between
// machines with and without fused multiply-add.
inline float ExpNegative(float x) {
  constexpr float kLeast = -86.0f;
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds
  const float y = x > kLeast ? x : kLeast;
  const float shifted = y * kLog2E + kRound;
  const int32_t exponent =
      std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound);
  const float n = shifted - kRound;
  const float r = (y - n * kLn2High) - n * kLn2Low;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * r) * r + r + 1.0f;
  const float result =
      std::bit_cast<float>(std::bit_cast<int32_t>(p) + (exponent << 23));
  return x > kLeast ? result : 0.0f;
}

using Lanes = std::array<float, kLanes>;

double Sum(const Lanes& lanes) {
  double sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

// Calls term(i) for i < count and adds it up, lane i % kLanes; store(i, term).
template <typename Term, typename Store>
double SumTerms(size_t count, const Term& term, const Store& store) {
  Lanes lanes = {};
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) {
      const float e = term(i + l);
      store(i + l, e);
      lanes[l] += e;
    }
  }
  for (size_t l = 0; i + l < count; ++l) {
    const float e = term(i + l);
    store(i + l, e);
    lanes[l] += e;
  }
  return Sum(lanes);
}

}  // namespace

float MaxOf(std::span<const float> values) {
  Lanes lanes;
  lanes.fill(kLowest);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) {
      const float x = values[i + l];
      lanes[l] = x > lanes[l] ? x : lanes[l];
    }
  }
  for (; i < values.size(); ++i) {
    lanes[0] = values[i] > lanes[0] ? values[i] : lanes[0];
  }
  return *std::ranges::max_element(lanes);
}

int32_t ArgMax(std::span<const float> values) {
  const float max = MaxOf(values);
  constexpr size_t kStride = 64;
  size_t i = 0;
  for (; i + kStride <= values.size(); i += kStride) {
    int32_t found = 0;
    for (size_t l = 0; l < kStride; ++l) found |= values[i + l] == max;
    if (found != 0) break;
  }
  for (; i < values.size(); ++i) {
    if (values[i] == max) return static_cast<int32_t>(i);
  }
  return 0;
}

float SoftmaxTerm(float x, float max, float temperature) {
  return ExpNegative((x - max) / temperature);
}

void SoftmaxTerms::Compute(std::span<const float> values, float max,
                           float temperature, float floor) {
  terms_.resize(values.size());
  block_sums_.clear();
  total_ = 0;
  for (size_t begin = 0; begin < values.size(); begin += kBlock) {
    const size_t count = std::min<size_t>(kBlock, values.size() - begin);
    const float* in = values.data() + begin;
    float* out = terms_.data() + begin;
    const double sum = SumTerms(
        count,
        [=](size_t i) {
          const float e = ExpNegative((in[i] - max) / temperature);
          return e >= floor ? e : 0.0f;
        },
        [=](size_t i, float e) { out[i] = e; });
    block_sums_.push_back(sum);
    total_ += sum;
  }
}

int32_t SoftmaxTerms::Find(double target) const {
  size_t block = 0;
  while (block + 1 < block_sums_.size() && target >= block_sums_[block]) {
    target -= block_sums_[block++];
  }
  const size_t end = std::min((block + 1) * kBlock, terms_.size());
  size_t last = block * kBlock;
  for (size_t i = last; i < end; ++i) {
    if (terms_[i] == 0) continue;
    last = i;
    target -= terms_[i];
    if (target < 0) break;
  }
  // Rounding can leave the target at a block's very end, even of an empty one:
  // then the nearest term before it that is not 0.
  while (terms_[last] == 0 && last > 0) --last;
  return static_cast<int32_t>(last);
}

double SoftmaxTotal(std::span<const float> values, float max) {
  double total = 0;
  for (size_t begin = 0; begin < values.size(); begin += SoftmaxTerms::kBlock) {
    const size_t count =
        std::min<size_t>(SoftmaxTerms::kBlock, values.size() - begin);
    const float* in = values.data() + begin;
    total += SumTerms(
        count, [=](size_t i) { return ExpNegative(in[i] - max); },
        [](size_t, float) {});
  }
  return total;
}

}  // namespace bullpen
