#include "kernels/int8_rows.h"
#include "kernels/oracle.h"

namespace bullpen::kernels::oracle {
namespace {

void MultiplyHead(const MatMulArgs& args) {
  const PanelMatrix& w = args.w;
  for (int64_t m = 0; m < args.tokens; ++m) {
    const float* x = args.x + m * args.x_stride;
    float* y = args.y + m * args.y_stride;
    const OracleRow row(w.dtype, x, w.cols, args.x_codes);
    for (int64_t n = 0; n < w.rows; ++n) {
      float sum = row.Dot(w, n);
      if (args.bias != nullptr) sum += args.bias[n];
      sum *= args.scale;
      y[n] = args.add ? y[n] + sum : sum;
    }
  }
}

}  // namespace

absl::Status MatMul(const MatMulArgs& args, Stream&) {
  for (int64_t head = 0; head < args.heads; ++head) {
    MultiplyHead(HeadOf(args, head));
  }
  return absl::OkStatus();
}

}  // namespace bullpen::kernels::oracle
