#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bullpen::kernels {

// Element types of the KV cache. kInt8 keeps each head's key and value of a
// token as integers with one float32 scale, max |x| / 127, so that a token's
// bits do not depend on those written beside it.
enum class KvType : uint8_t { kF32, kF16, kInt8 };

constexpr std::string_view KvTypeName(KvType type) {
  return type == KvType::kF32 ? "f32" : type == KvType::kF16 ? "f16" : "int8";
}

constexpr int64_t KvElementBytes(KvType type) {
  return type == KvType::kF32 ? 4 : type == KvType::kF16 ? 2 : 1;
}

// Tokens of a block.
inline constexpr int kKvBlockTokens = 16;

constexpr int64_t KvBlocksFor(int64_t tokens) {
  return (tokens + kKvBlockTokens - 1) / kKvBlockTokens;
}

// Scales of one head's keys or values in a block: they stand before them.
constexpr int64_t KvScaleBytes(KvType type) {
  return type == KvType::kInt8 ? kKvBlockTokens * 4 : 0;
}

// One layer's part of the paged KV pool. A block holds kKvBlockTokens tokens:
//   K: [k_dim][16]  (tokens in the lanes: a score is a chain over k_dim)
//   V: [16][v_dim]  (v_dim in the lanes: an output is a chain over tokens);
//      none with value_in_key
// K of all heads stand before V: [kv_heads][blocks]. So the blocks of one head
// that follow each other are one stream, and no power of two lies between what
// is read together, which a cache would put in the same few sets.
struct KvLayer {
  std::byte* base = nullptr;  // 64-byte aligned
  KvType type = KvType::kF32;
  int32_t blocks = 0;
  int32_t kv_heads = 0;
  int32_t k_dim = 0;
  int32_t v_dim = 0;
  // A value is the first v_dim elements of its key, stored once (latent
  // attention).
  bool value_in_key = false;

  // Of one head in a block.
  constexpr int64_t key_bytes() const {
    return KvScaleBytes(type) + k_dim * kKvBlockTokens * KvElementBytes(type);
  }
  constexpr int64_t value_bytes() const {
    return value_in_key ? 0
                        : KvScaleBytes(type) +
                              v_dim * kKvBlockTokens * KvElementBytes(type);
  }
  constexpr int64_t block_bytes() const {
    return kv_heads * (key_bytes() + value_bytes());
  }
  // Where the elements of one head begin; its scales end there.
  constexpr std::byte* keys(int64_t block, int64_t head) const {
    return base + (head * blocks + block) * key_bytes() + KvScaleBytes(type);
  }
  constexpr std::byte* values(int64_t block, int64_t head) const {
    return base + kv_heads * blocks * key_bytes() +
           (head * blocks + block) * value_bytes() + KvScaleBytes(type);
  }
};

// The rows of one sequence in a batch.
struct KvSequence {
  const int32_t* blocks = nullptr;  // block of position p is blocks[p / 16]
  int32_t first_row = 0;            // its rows in the batch are contiguous
  int32_t rows = 0;
  int32_t first_position = 0;  // position of first_row
};

}  // namespace bullpen::kernels
