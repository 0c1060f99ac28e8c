#include "kernels/int8_dot_simd.h"
#include "kernels/simd_avx512.h"

namespace bullpen::kernels {

// Sums have 32 bits: a group is one run.
Int8Function ChooseInt8Avx512(const PanelFormat& format, int tokens) {
  const bool wide = format.group_cols == 32;
  switch (format.code_bits) {
    case 4:
      if (format.values == kIq4Values || format.values == kMxfp4Values) {
        return ChooseInt8Kind<Avx512, 4, true, 8>(tokens);
      }
      return wide ? ChooseInt8Kind<Avx512, 4, false, 8>(tokens)
                  : ChooseInt8Kind<Avx512, 4, false, 4>(tokens);
    case 5:
      return ChooseInt8Kind<Avx512, 5, false, 8>(tokens);
    case 6:
      return ChooseInt8Kind<Avx512, 6, false, 4>(tokens);
    default:
      return wide ? ChooseInt8Kind<Avx512, 8, false, 8>(tokens)
                  : ChooseInt8Kind<Avx512, 8, false, 4>(tokens);
  }
}

}  // namespace bullpen::kernels
