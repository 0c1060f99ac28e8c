#include "engine/softmax.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/vector_clones.h"

namespace bullpen {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Independent lanes, so that the compiler uses vectors and the order of every
// sum is fixed.
constexpr size_t kLanes = 16;

// exp(x) for x <= 0 by range reduction and a polynomial (relative error about
// 1e-7); 0 from -86 down and for NaN. libm's own would differ between machines
// with and without fused multiply-add. There is no branch: out of range the
// mask at the end drops whatever came out.
inline float ExpNegative(float x) {
  constexpr float kLeast = -86.0f;
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds
  const float shifted = x * kLog2E + kRound;
  const uint32_t exponent =
      std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRound);
  const float n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * r) * r + r + 1.0f;
  const uint32_t bits = std::bit_cast<uint32_t>(p) + (exponent << 23);
  const uint32_t mask = -static_cast<uint32_t>(x > kLeast);
  return std::bit_cast<float>(bits & mask);
}

using Lanes = std::array<float, kLanes>;

// The sum of at most a block, lane i % kLanes.
BULLPEN_VECTOR_CLONES double SumOf(std::span<const float> terms) {
  Lanes lanes = {};
  size_t i = 0;
  for (; i + kLanes <= terms.size(); i += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) lanes[l] += terms[i + l];
  }
  for (size_t l = 0; i + l < terms.size(); ++l) lanes[l] += terms[i + l];
  double sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

// A loop of its own, without a sum, is what the compiler makes vectors of.
BULLPEN_VECTOR_CLONES void FillTerms(std::span<const float> in, float max,
                                     float temperature, float* out) {
  for (size_t i = 0; i < in.size(); ++i) {
    out[i] = ExpNegative((in[i] - max) / temperature);
  }
}

BULLPEN_VECTOR_CLONES bool AnyBetween(std::span<const float> values,
                                      float least, float most) {
  int32_t found = 0;
  for (float value : values) {
    found |= static_cast<int32_t>(value >= least) &
             static_cast<int32_t>(value <= most);
  }
  return found != 0;
}

// Makes all 0 that are less than `least`.
BULLPEN_VECTOR_CLONES void DropLess(float least, std::span<float> terms) {
  for (float& term : terms) term = term >= least ? term : 0.0f;
}

}  // namespace

BULLPEN_VECTOR_CLONES float MaxOf(std::span<const float> values) {
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
  constexpr size_t kStride = 1024;
  size_t i = 0;
  while (i + kStride <= values.size() &&
         !AnyBetween(values.subspan(i, kStride), max, max)) {
    i += kStride;
  }
  for (; i < values.size(); ++i) {
    if (values[i] == max) return static_cast<int32_t>(i);
  }
  return 0;
}

void FindBetween(std::span<const float> values, float least, float most,
                 std::vector<int32_t>& found) {
  constexpr size_t kStride = 64;
  for (size_t begin = 0; begin < values.size(); begin += kStride) {
    const size_t end = std::min(begin + kStride, values.size());
    const std::span<const float> block(values.data() + begin, end - begin);
    if (!AnyBetween(block, least, most)) continue;
    for (size_t i = begin; i < end; ++i) {
      if (values[i] >= least && values[i] <= most) {
        found.push_back(static_cast<int32_t>(i));
      }
    }
  }
}

// Terms are sorted roughly, without comparing them, by their exponent and five
// bits of mantissa: as floats from 0 to 1, their bits are in their order.
int SoftmaxTerms::Bucket(float term) {
  return static_cast<int>(std::bit_cast<uint32_t>(term) >> 18);
}
float SoftmaxTerms::LowestOf(int bucket) {
  return std::bit_cast<float>(static_cast<uint32_t>(bucket) << 18);
}

float SoftmaxTerm(float x, float max, float temperature) {
  return ExpNegative((x - max) / temperature);
}

void SoftmaxTerms::Compute(std::span<const float> values, float max,
                           float temperature) {
  terms_.resize(values.size());
  FillTerms(values, max, temperature, terms_.data());
  SumBlocks();
}

void SoftmaxTerms::SumBlocks() {
  const std::span<const float> terms(terms_);
  block_sums_.clear();
  total_ = 0;
  for (size_t begin = 0; begin < terms.size(); begin += kBlock) {
    const size_t count = std::min<size_t>(kBlock, terms.size() - begin);
    block_sums_.push_back(SumOf(terms.subspan(begin, count)));
    total_ += block_sums_.back();
  }
}

void SoftmaxTerms::DropBelow(float floor) {
  DropLess(floor, terms_);
  SumBlocks();
}

// The sums of the terms by bucket, of those in blocks with one of `least`.
void SoftmaxTerms::SumBuckets(float least) {
  constexpr size_t kStride = 64;
  bucket_sums_.assign(kBuckets, 0);
  const std::span<const float> terms(terms_);
  for (size_t begin = 0; begin < terms.size(); begin += kStride) {
    const std::span<const float> block =
        terms.subspan(begin, std::min(kStride, terms.size() - begin));
    if (!AnyBetween(block, least, 1.0f)) continue;
    for (float term : block) bucket_sums_[Bucket(term)] += term;
  }
}

void SoftmaxTerms::KeepNucleus(double mass) {
  // All terms below this together are less than what may be dropped.
  const double least =
      (total_ - mass) / (2.0 * static_cast<double>(terms_.size()));
  SumBuckets(static_cast<float>(least));
  double sum = 0;
  int bucket = kBuckets - 1;
  while (bucket > 0 && sum + bucket_sums_[bucket] < mass) {
    sum += bucket_sums_[bucket--];
  }
  // The border lies in this bucket, and only its terms need an order.
  const float lowest = LowestOf(bucket);
  border_.clear();
  FindBetween(terms_, lowest, std::nextafter(LowestOf(bucket + 1), 0.0f),
              border_);
  std::ranges::stable_sort(
      border_, [this](int32_t a, int32_t b) { return terms_[a] > terms_[b]; });
  size_t kept = 0;
  while (kept < border_.size() && sum < mass) sum += terms_[border_[kept++]];
  for (size_t i = kept; i < border_.size(); ++i) terms_[border_[i]] = 0;
  DropLess(lowest, terms_);
  SumBlocks();
}

int32_t SoftmaxTerms::Find(double target) const {
  size_t block = 0;
  while (block + 1 < block_sums_.size() && target >= block_sums_[block]) {
    target -= block_sums_[block++];
  }
  const size_t end = std::min((block + 1) * kBlock, terms_.size());
  size_t last = block * kBlock;
  for (size_t i = last; i < end; ++i) {
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
  std::array<float, SoftmaxTerms::kBlock> terms;
  double total = 0;
  for (size_t begin = 0; begin < values.size(); begin += terms.size()) {
    const size_t count = std::min(terms.size(), values.size() - begin);
    FillTerms(values.subspan(begin, count), max, 1.0f, terms.data());
    total += SumOf({terms.data(), count});
  }
  return total;
}

}  // namespace bullpen
