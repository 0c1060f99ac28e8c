#include "kernels/oracle.h"
#include "kernels/quant_panels.h"

namespace bullpen::kernels::oracle {

absl::Status Embed(const EmbedArgs& args, Stream&) {
  const int64_t dim = args.table.cols;
  for (int64_t t = 0; t < args.tokens; ++t) {
    for (int64_t c = 0; c < dim; ++c) {
      args.out[t * dim + c] =
          args.scale * PanelElement(args.table, args.ids[t], c);
    }
  }
  return absl::OkStatus();
}

}  // namespace bullpen::kernels::oracle
