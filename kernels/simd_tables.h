#pragma once

#include "kernels/ops.h"

namespace bullpen::kernels {

// Filled by ops_avx2.cc and ops_avx512.cc, which are compiled for those CPUs.
extern const Ops kAvx2Ops;
extern const Ops kAvx512Ops;

}  // namespace bullpen::kernels
