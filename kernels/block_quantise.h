#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/block_format.h"

namespace bullpen::kernels {

// Whether Quantise writes that format: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, MXFP4,
// IQ4_NL, Q4_K, Q5_K, Q6_K, and BF16 and F16.
bool CanQuantise(const BlockFormat& format);

// `count` values, a whole number of blocks, in the format. The simple formats
// take the scale that the extreme value gives, to the bit as the gguf package
// does; IQ4_NL and the K formats search for the scales with the least squared
// error, as GGML does. With an `importance` of each value, positive and finite,
// errors count by it, and all formats but Q8_0 search.
void Quantise(const BlockFormat& format, const float* values, int64_t count,
              std::byte* out, const float* importance = nullptr);

}  // namespace bullpen::kernels
