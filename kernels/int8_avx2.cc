#include "kernels/int8_dot_simd.h"
#include "kernels/simd_avx2.h"

namespace bullpen::kernels {

// A 16-bit sum has room for 8 products of two 4-bit codes with 8-bit ones, 4
// of 5-bit codes or of MXFP4's values (0 to 24), 2 of 6-bit codes, and 1 of
// signed 8-bit ones.
Int8Function ChooseInt8Avx2(const PanelFormat& format, int tokens) {
  const bool wide = format.group_cols == 32;
  switch (format.code_bits) {
    case 4:
      if (format.values == kIq4Values) {
        return ChooseInt8Kind<Avx2, 4, true, 1, true>(tokens);
      }
      if (format.values == kMxfp4Values) {
        return ChooseInt8Kind<Avx2, 4, true, 4>(tokens);
      }
      return wide ? ChooseInt8Kind<Avx2, 4, false, 8>(tokens)
                  : ChooseInt8Kind<Avx2, 4, false, 4>(tokens);
    case 5:
      return ChooseInt8Kind<Avx2, 5, false, 4>(tokens);
    case 6:
      return ChooseInt8Kind<Avx2, 6, false, 2>(tokens);
    default:
      return ChooseInt8Kind<Avx2, 8, false, 1, true>(tokens);
  }
}

}  // namespace bullpen::kernels
