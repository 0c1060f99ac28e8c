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
#include "kernels/simd_avx2.h"
#include "kernels/simd_tables.h"

namespace bullpen::kernels {

// Compiled for AVX2 + FMA + F16C, see CMakeLists.txt.
const Ops kAvx2Ops = {
    .name = "avx2",
    .embed = Embed<Avx2>,
    .matmul = MatMul<Avx2>,
    .rms_norm = RmsNorm<Avx2>,
    .layer_norm = LayerNorm<Avx2>,
    .rope = Rope<Avx2>,
    .kv_write = KvWrite<Avx2>,
    .attention = Attention<Avx2>,
    .route = Route<Avx2>,
    .grouped_ffn = GroupedFfn<Avx2>,
    .combine = Combine<Avx2>,
};

}  // namespace bullpen::kernels
