#include "kernels/attention_simd.h"
#include "kernels/combine_simd.h"
#include "kernels/embed_simd.h"
#include "kernels/grouped_ffn_simd.h"
#include "kernels/kv_write_simd.h"
#include "kernels/layer_norm_simd.h"
#include "kernels/matmul_simd.h"
#include "kernels/rms_norm_simd.h"
#include "kernels/rope_simd.h"
#include "kernels/route_simd.h"
#include "kernels/simd_avx512.h"
#include "kernels/simd_tables.h"

namespace bullpen::kernels {

// Compiled for AVX-512 F + BW + DQ + VL + VNNI, see CMakeLists.txt.
const Ops kAvx512Ops = {
    .name = "avx512",
    .embed = Embed<Avx512>,
    .matmul = MatMul<Avx512>,
    .rms_norm = RmsNorm<Avx512>,
    .layer_norm = LayerNorm<Avx512>,
    .rope = Rope<Avx512>,
    .kv_write = KvWrite<Avx512>,
    .attention = Attention<Avx512>,
    .route = Route<Avx512>,
    .grouped_ffn = GroupedFfn<Avx512>,
    .combine = Combine<Avx512>,
};

}  // namespace bullpen::kernels
