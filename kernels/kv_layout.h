#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/types.h"

namespace bullpen::kernels {

// One layer's part of the paged KV pool. A block holds kKvBlockTokens tokens:
//   K: [kv_heads][k_dim][16]  (tokens in the lanes: a score is a chain over
//   k_dim) V: [kv_heads][16][v_dim]  (v_dim in the lanes: an output is a chain
//   over tokens)
// Block b starts at base + b * KvBlockBytes.
inline constexpr int kKvBlockTokens = 16;

struct KvLayer {
  std::byte* base = nullptr;  // 64-byte aligned
  DType dtype = DType::kF32;  // kF32 or kF16
  int32_t kv_heads = 0;
  int32_t k_dim = 0;
  int32_t v_dim = 0;
};

constexpr int64_t KvBlockBytes(DType dtype, int64_t kv_heads, int64_t k_dim,
                               int64_t v_dim) {
  return kv_heads * (k_dim + v_dim) * kKvBlockTokens * DTypeBytes(dtype);
}

// The rows of one sequence in a batch.
struct KvSequence {
  const int32_t* blocks = nullptr;  // block of position p is blocks[p / 16]
  int32_t first_row = 0;            // its rows in the batch are contiguous
  int32_t rows = 0;
  int32_t first_position = 0;  // position of first_row
};

// The block of one position, and where one head's K and V begin in a block.
constexpr std::byte* KvBlock(const KvLayer& layer, const KvSequence& sequence,
                             int64_t position) {
  return layer.base + sequence.blocks[position / kKvBlockTokens] *
                          KvBlockBytes(layer.dtype, layer.kv_heads, layer.k_dim,
                                       layer.v_dim);
}
constexpr int64_t KvKeyOffset(const KvLayer& layer, int64_t head) {
  return head * layer.k_dim * kKvBlockTokens * DTypeBytes(layer.dtype);
}
constexpr int64_t KvValueOffset(const KvLayer& layer, int64_t head) {
  return (layer.kv_heads * layer.k_dim + head * layer.v_dim) * kKvBlockTokens *
         DTypeBytes(layer.dtype);
}

}  // namespace bullpen::kernels
