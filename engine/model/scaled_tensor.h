#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "engine/model/checkpoint_parts.h"

// Weights whose scales are a tensor of their own: MXFP4 as gpt-oss has it
// (NAME_blocks [..., G, 16] and NAME_scales [..., G], OCP Microscaling Formats
// 1.0) and FP8 E4M3 by blocks as DeepSeek-V3 has it (NAME and NAME_scale_inv,
// one scale for quantization_config.weight_block_size; F32, BF16, F16, or as
// the bare exponents F8_E8M0, which are powers of two).

namespace bullpen {

// Joins each such pair to one tensor in the shape of its weights, under the
// name of the first: of dtype MXFP4, or F8_E4M3. DataLoss names a pair that
// does not fit together.
absl::Status JoinScales(CheckpointParts& parts);

// Whether its weights are FP8, which kernels know as F32, or as BF16 where
// scales are powers of two. MXFP4 they know as it is.
bool IsFp8(const SourceTensor& tensor);

// Bytes of one row of the weights alone, and of their scales.
int64_t WeightRowBytes(const SourceTensor& tensor);
int64_t ScaleRowBytes(const SourceTensor& tensor);
// Which row of the scales belongs to a row of the tensor.
int64_t ScaleRow(const SourceTensor& tensor, int64_t row);

// The same groups of 32 weights in the blocks of GGUF's MXFP4.
void JoinMxfp4Blocks(std::span<const std::byte> weights,
                     std::span<const std::byte> scales,
                     std::span<std::byte> out);

// Consecutive rows of an FP8 tensor, as they are stored.
struct Fp8Rows {
  int64_t first = 0;
  int64_t count = 0;
  std::span<const std::byte> weights;
  std::span<const std::byte> scales;  // from ScaleRow(first) on
};
void DequantiseFp8(const SourceTensor& tensor, const Fp8Rows& rows, float* out);

}  // namespace bullpen
