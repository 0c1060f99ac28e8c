#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bullpen::kernels {
namespace {

// out[w][t] = rows[t][w], words of four bytes.
inline void Interleave(const std::byte* const* rows, int tokens, int64_t words,
                       std::byte* out) {
  constexpr int kSquare = 4;
  int64_t done = 0;
  if (tokens >= kSquare) {
    for (; done + kSquare <= words; done += kSquare) {
      // The last square of rows overlaps the one before.
      for (int next = 0; next < tokens; next += kSquare) {
        const int t = std::min(next, tokens - kSquare);
        __m128 a[kSquare];
        for (int i = 0; i < kSquare; ++i) {
          a[i] = _mm_loadu_ps(
              reinterpret_cast<const float*>(rows[t + i] + 4 * done));
        }
        _MM_TRANSPOSE4_PS(a[0], a[1], a[2], a[3]);
        for (int i = 0; i < kSquare; ++i) {
          _mm_storeu_ps(
              reinterpret_cast<float*>(out + 4 * ((done + i) * tokens + t)),
              a[i]);
        }
      }
    }
  }
  for (; done < words; ++done) {
    for (int t = 0; t < tokens; ++t) {
      std::memcpy(out + 4 * (done * tokens + t), rows[t] + 4 * done, 4);
    }
  }
}

}  // namespace
}  // namespace bullpen::kernels
