#include "kernels/int8_dot_simd.h"
#include "kernels/simd_avx512.h"

namespace bullpen::kernels {

Int8Function ChooseInt8Avx512(DType type, int tokens) {
  return ChooseInt8<Avx512>(type, tokens);
}

}  // namespace bullpen::kernels
