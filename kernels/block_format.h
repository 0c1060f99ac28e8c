#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/types.h"

namespace bullpen::kernels {

inline constexpr int kMaxBlockElements = 256;

// One block in the form that all formats share: element i is
//   scales[g] * quants[i] - minimums[g], g = i / BlockFormat::group_elements,
// each operation rounded to float32. Where groups have integers for scales,
// scales[g] is d * group_scales[g] and minimums[g] dmin * group_minimums[g].
struct UnpackedBlock {
  int8_t quants[kMaxBlockElements];
  float scales[kMaxBlockElements / 16];
  float minimums[kMaxBlockElements / 16];
  float d, dmin;
  int8_t group_scales[kMaxBlockElements / 16];
  int8_t group_minimums[kMaxBlockElements / 16];
};

// A storage format of weights: a row is a sequence of blocks of `elements`
// values in `bytes` bytes. Names and ids are GGML's, which defines all of them
// but MXFP4 (OCP Microscaling Formats 1.0, with GGML's order of elements).
struct BlockFormat {
  std::string_view name;
  int32_t gguf_id = 0;
  int32_t elements = 1;
  int32_t bytes = 0;
  // The narrowest type in which kernels hold every value exactly.
  DType exact = DType::kF32;
  int32_t group_elements = 1;  // that share a scale
  // Null for plain types, and for those that are only known by name.
  void (*unpack)(const std::byte* block, UnpackedBlock& out) = nullptr;
  bool plain = false;  // a block is one element of type `exact`

  bool readable() const { return plain || unpack != nullptr; }
  int64_t RowBytes(int64_t cols) const { return cols / elements * bytes; }
};

// Every format that a GGUF file may name, readable or not.
std::span<const BlockFormat> BlockFormats();
// Null: no such format.
const BlockFormat* FindBlockFormat(std::string_view name);
const BlockFormat* FindBlockFormat(int64_t gguf_id);

// Values of `count` elements, a whole number of blocks of a readable format.
void Dequantise(const BlockFormat& format, const std::byte* blocks,
                int64_t count, float* out);

// 2^(exponent - 128), the scale that belongs to kMxfp4Values.
float Mxfp4Scale(uint8_t exponent);

}  // namespace bullpen::kernels
