#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bullpen {

// The largest value; NaN counts as the least. -infinity if there is no other.
float MaxOf(std::span<const float> values);

// Where the largest value stands, the first of equals. 0 if all are NaN.
int32_t ArgMax(std::span<const float> values);

// Appends the indices of the values in [least, most], ascending.
void FindBetween(std::span<const float> values, float least, float most,
                 std::vector<int32_t>& found);

// e(x) = exp((x - max) / temperature), the same bits on every machine; NaN and
// what is too small for a normal float give 0. max is MaxOf, and finite.
float SoftmaxTerm(float x, float max, float temperature);

// All terms of a softmax, in one fixed order of summation. Keeps its memory.
class SoftmaxTerms {
 public:
  static constexpr int kBlock = 1024;

  void Compute(std::span<const float> values, float max, float temperature);
  // Makes all terms 0 but the fewest whose sum reaches `mass`: the largest, of
  // equals the first. At least one stays if mass > 0. Linear in their number.
  void KeepNucleus(double mass);
  // Makes all terms less than `floor` 0.
  void DropBelow(float floor);

  std::span<const float> terms() const { return terms_; }
  double total() const { return total_; }
  // The index at which the running sum of the terms passes target, which is in
  // [0, total): never one whose term is 0.
  int32_t Find(double target) const;

 private:
  static constexpr int kBuckets = (0x3f800000 >> 18) + 1;  // up to 1.0f
  static int Bucket(float term);
  static float LowestOf(int bucket);
  void SumBuckets(float least);
  void SumBlocks();

  std::vector<float> terms_;
  std::vector<double> block_sums_;
  double total_ = 0;
  std::vector<double> bucket_sums_;
  std::vector<int32_t> border_;
};

// The same total without keeping the terms.
double SoftmaxTotal(std::span<const float> values, float max);

}  // namespace bullpen
