#pragma once

#include <cstdint>

#include "kernels/kv_layout.h"

namespace bullpen::kernels {

// Stores K and V of a batch's rows into their blocks; rounds to nearest even
// if the pool is fp16 or int8 (kernels/kv_element.h).
struct KvWriteArgs {
  const float* k = nullptr;  // [tokens, kv_heads, k_dim], k_stride per token
  int64_t k_stride = 0;
  const float* v = nullptr;  // [tokens, kv_heads, v_dim], v_stride per token;
  int64_t v_stride = 0;      // not read if values are in the keys
  KvLayer layer = {};
  const KvSequence* sequences = nullptr;
  int32_t sequence_count = 0;
};

}  // namespace bullpen::kernels
