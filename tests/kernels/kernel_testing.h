#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "base/worker_pool.h"
#include "kernels/ops.h"
#include "tests/kernels/block_panels.h"

namespace bullpen::kernels {

// An array of exactly `size` elements on the heap, so that a sanitizer sees
// the first byte that an op reads or writes beside it.
template <typename T>
class Exact {
 public:
  explicit Exact(int64_t size, T fill = T{})
      : size_(size),
        data_(static_cast<T*>(::operator new(
            static_cast<size_t>(size) * sizeof(T), std::align_val_t(64)))) {
    std::fill(data_.get(), data_.get() + size, fill);
  }
  Exact(const Exact& other) : Exact(other.size_) {
    std::copy(other.data(), other.data() + size_, data());
  }
  Exact(Exact&&) = default;
  Exact& operator=(Exact&&) = default;

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data_.get()[i]; }
  const T& operator[](int64_t i) const { return data_.get()[i]; }

 private:
  struct Delete {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  int64_t size_;
  std::unique_ptr<T[], Delete> data_;
};

using Floats = Exact<float>;

// Random data and shapes; the seed is printed with every failure.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}

  int32_t Between(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(engine_);
  }
  float Normal() { return std::normal_distribution<float>()(engine_); }
  template <typename T>
  T OneOf(std::initializer_list<T> choices) {
    return choices
        .begin()[Between(0, static_cast<int32_t>(choices.size()) - 1)];
  }
  Floats Vector(int64_t size, float scale = 1.0f) {
    Floats values(size);
    for (int64_t i = 0; i < size; ++i) values[i] = scale * Normal();
    return values;
  }
  // Panels of random weights of `dtype`; padding rows are zero.
  Exact<std::byte> Panels(DType dtype, int32_t rows, int32_t cols) {
    Exact<std::byte> panels(PanelBytes(dtype, rows, cols));
    FillPanels(dtype, rows, cols, panels.data());
    return panels;
  }
  void FillPanels(DType dtype, int32_t rows, int32_t cols, std::byte* out) {
    if (!IsPlain(dtype)) {
      FillBlockPanels(dtype, {out, out + PanelBytes(dtype, rows, cols)},
                      engine_);
      return;
    }
    const Floats source = Vector(int64_t{rows} * cols, 0.3f);
    if (dtype == DType::kF32) {
      PackPanels(dtype, source.data(), rows, cols, cols, out);
      return;
    }
    Exact<uint16_t> halves(source.size());
    for (int64_t i = 0; i < source.size(); ++i) {
      halves[i] = FromFloat(source[i], dtype);
    }
    PackPanels(dtype, halves.data(), rows, cols, cols, out);
  }
  std::mt19937& engine() { return engine_; }

 private:
  std::mt19937 engine_;
};

// Success if both hold the same bits; any NaN equals any other.
inline ::testing::AssertionResult SameBits(const Floats& actual,
                                           const Floats& expected) {
  if (actual.size() != expected.size()) {
    return ::testing::AssertionFailure()
           << actual.size() << " elements, expected " << expected.size();
  }
  for (int64_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(actual[i]) && std::isnan(expected[i])) continue;
    if (std::bit_cast<uint32_t>(actual[i]) !=
        std::bit_cast<uint32_t>(expected[i])) {
      return ::testing::AssertionFailure()
             << "element " << i << " of " << actual.size() << " is "
             << actual[i] << " (" << std::hexfloat << actual[i]
             << "), expected " << expected[i] << std::defaultfloat;
    }
  }
  return ::testing::AssertionSuccess();
}

inline const char* IsaName(Isa isa) {
  return isa == Isa::kAvx512 ? "avx512" : isa == Isa::kAvx2 ? "avx2" : "oracle";
}

// A test of one vector table against the oracle, on 1 and on 3 threads.
class OpsTest : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!IsSupported(GetParam())) {
      GTEST_SKIP() << "this CPU cannot run " << IsaName(GetParam());
    }
  }
  const Ops& ops() const { return CpuOps(GetParam()); }
  static const Ops& oracle() { return CpuOps(Isa::kOracle); }
  // Three workers on however many CPUs: any split must give the same bits.
  static Stream Threads(int count) {
    static WorkerPool* const one = new WorkerPool(1, /*pin=*/false);
    static WorkerPool* const three = new WorkerPool(3, /*pin=*/false);
    return {.pool = count == 1 ? one : three};
  }
};

#define INSTANTIATE_FOR_EACH_ISA(suite)                        \
  INSTANTIATE_TEST_SUITE_P(                                    \
      Isa, suite, ::testing::Values(Isa::kAvx2, Isa::kAvx512), \
      [](const auto& info) { return std::string(IsaName(info.param)); })

}  // namespace bullpen::kernels
