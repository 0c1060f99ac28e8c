#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/attention_keys.h"
#include "kernels/attention_part_simd.h"
#include "kernels/attention_tile.h"
#include "kernels/math_simd.h"

// How the parts of a query become its output, see attention.h.

namespace bullpen::kernels {
namespace {

// m and z of a query, of the parts so far; its a is in the output.
struct FoldState {
  float m = std::numeric_limits<float>::lowest();
  float z = 0;
};

inline FoldState BeginFold(const AttentionArgs& args, const AttentionTile& tile,
                           int32_t query) {
  std::memset(OutputOf(args, tile, query), 0,
              static_cast<size_t>(args.layer.v_dim) * sizeof(float));
  if (args.sinks == nullptr) return {};
  return {.m = args.sinks[tile.head + query % tile.heads], .z = 1};
}

template <typename V>
void Fold(const PartResult& part, int64_t v_dim, FoldState& state, float* out) {
  using F = typename V::F;
  const auto exp = [](float x) {
    return _mm256_cvtss_f32(V::Low(ExpLanes<V>(V::Set(x))));
  };
  const float n = std::max(state.m, part.m());
  const float f = exp(state.m - n);
  const float g = exp(part.m() - n);
  state = {.m = n, .z = std::fma(part.z(), g, state.z * f)};
  for (int64_t d = 0; d < v_dim; d += 16) {
    const int lanes = static_cast<int>(std::min<int64_t>(v_dim - d, 16));
    const F sum = V::Fma(V::Load(part.values() + d), V::Set(g),
                         V::Mul(LoadLanes<V>(out + d, lanes), V::Set(f)));
    StoreLanes<V>(out + d, lanes, sum);
  }
}

template <typename V>
void EndFold(const FoldState& state, int64_t v_dim, float* out) {
  for (int64_t d = 0; d < v_dim; d += 16) {
    const int lanes = static_cast<int>(std::min<int64_t>(v_dim - d, 16));
    StoreLanes<V>(out + d, lanes,
                  V::Div(LoadLanes<V>(out + d, lanes), V::Set(state.z)));
  }
}

}  // namespace
}  // namespace bullpen::kernels
