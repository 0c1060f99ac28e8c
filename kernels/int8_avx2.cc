#include "kernels/int8_dot_simd.h"
#include "kernels/simd_avx2.h"

namespace bullpen::kernels {

Int8Function ChooseInt8Avx2(DType type, int tokens) {
  return ChooseInt8<Avx2>(type, tokens);
}

}  // namespace bullpen::kernels
