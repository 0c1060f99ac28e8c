#include "engine/model/pack_types.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/strings.h"
#include "engine/model/config_fields.h"
#include "kernels/block_format.h"
#include "kernels/block_quantise.h"

namespace bullpen {
namespace {

using kernels::DType;

// Bits that a weight takes in panels.
double BitsOf(DType type) {
  const kernels::PanelFormat& format = kernels::FormatOf(type);
  return 8.0 * format.block_bytes() / (format.block_cols * kernels::kPanelRows);
}

bool Fits(DType type, int64_t cols) {
  return cols % kernels::FormatOf(type).block_cols == 0;
}

// The target for rows of `cols` columns that are of type `now`.
DType NewType(DType now, DType target, int64_t cols) {
  if (!Fits(target, cols)) {
    target = target == DType::kQ4_K   ? DType::kQ5_0
             : target == DType::kQ5_K ? DType::kQ5_1
             : target == DType::kQ6_K ? DType::kQ8_0
                                      : target;
  }
  return Fits(target, cols) && BitsOf(target) < BitsOf(now) ? target : now;
}

}  // namespace

absl::StatusOr<DType> ParseTargetType(std::string_view name) {
  std::string upper(name);
  std::transform(upper.begin(), upper.end(), upper.begin(), [](char c) {
    return static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  });
  std::vector<std::string> known;
  for (const kernels::BlockFormat& format : kernels::BlockFormats()) {
    if (format.plain || !kernels::CanQuantise(format)) continue;
    if (format.name == upper) return *kernels::FindDType(upper);
    known.emplace_back(format.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("weights cannot be quantised to '", Printable(name),
                   "'; there are ", absl::StrJoin(known, ", ")));
}

void SetTypes(const TargetTypes& targets, PackPlan& plan) {
  plan.total_bytes = 0;
  for (ResidentPlan& tensor : plan.resident) {
    if (targets.resident.has_value() && tensor.shape.panels() &&
        !tensor.shape.name.ends_with("router")) {
      tensor.dtype =
          NewType(tensor.dtype, *targets.resident, tensor.shape.cols);
    }
    plan.total_bytes += tensor.shape.bytes(tensor.dtype);
  }
  for (LayerPlan& layer : plan.layers) {
    kernels::ExpertShape& shape = layer.shape;
    if (targets.experts.has_value()) {
      const DType down =
          NewType(shape.down_dtype(), *targets.experts, shape.inner);
      shape.dtype = NewType(shape.dtype, *targets.experts, shape.dim);
      shape.other_down.reset();
      if (down != shape.dtype) shape.other_down = down;
      layer.blob_bytes = BlobBytes(shape);
    }
    plan.total_bytes +=
        layer.blob_bytes * static_cast<int64_t>(layer.experts.size());
  }
}

std::string PackReport::ToText() const {
  std::string text;
  for (const auto& [what, line] : lines) {
    absl::StrAppendFormat(
        &text, "%-36s %14d weights  %12s  %5.2f bits", what, line.weights,
        FormatBytes(line.packed_bytes),
        8.0 * static_cast<double>(line.packed_bytes) /
            static_cast<double>(std::max<int64_t>(line.weights, 1)));
    if (line.squares > 0) {
      absl::StrAppendFormat(&text, "  relative error %.4f",
                            std::sqrt(line.squared_error / line.squares));
    }
    text += "\n";
  }
  return text;
}

}  // namespace bullpen
