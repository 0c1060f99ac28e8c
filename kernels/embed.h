#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace bullpen::kernels {

// out[t] = scale * row ids[t] of the table (a panel matrix, so that a tied
// head shares it). Ids are in range (checked by the caller).
struct EmbedArgs {
  PanelMatrix table = {};        // [vocab, dim]
  const int32_t* ids = nullptr;  // [tokens]
  float* out = nullptr;          // [tokens, dim]
  int32_t tokens = 0;
  float scale = 1.0f;  // 1 leaves the bits as they are
};

}  // namespace bullpen::kernels
