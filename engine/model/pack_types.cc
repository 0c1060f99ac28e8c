#include "engine/model/pack_types.h"

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

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

struct Choice {
  DType type = DType::kF32;
  std::string reason = {};
};

// The type for rows of `cols` columns that are of type `now`.
Choice NewType(const Choice& now, DType asked, int64_t cols) {
  DType target = asked;
  if (!Fits(target, cols)) {
    target = target == DType::kQ4_K   ? DType::kQ5_0
             : target == DType::kQ5_K ? DType::kQ5_1
             : target == DType::kQ6_K ? DType::kQ8_0
                                      : target;
  }
  std::string reason;
  if (target != asked || !Fits(target, cols)) {
    reason = absl::StrCat("rows of ", cols, " are no whole blocks of ",
                          Absl(DTypeName(asked)));
  }
  if (!Fits(target, cols)) return {now.type, reason};
  if (BitsOf(target) < BitsOf(now.type)) return {target, reason};
  if (target == now.type) return now;
  return {now.type,
          absl::StrCat("has no more bits than ", Absl(DTypeName(target)))};
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
      const Choice choice = NewType({tensor.dtype, tensor.reason},
                                    *targets.resident, tensor.shape.cols);
      tensor.dtype = choice.type;
      tensor.reason = choice.reason;
    }
    plan.total_bytes += tensor.shape.bytes(tensor.dtype);
  }
  for (LayerPlan& layer : plan.layers) {
    kernels::ExpertShape& shape = layer.shape;
    if (targets.experts.has_value()) {
      const Choice gate = NewType({shape.dtype, layer.gate_reason},
                                  *targets.experts, shape.dim);
      const Choice down = NewType({shape.down_dtype(), layer.down_reason},
                                  *targets.experts, shape.inner);
      layer.gate_reason = gate.reason;
      layer.down_reason = down.reason;
      shape.dtype = gate.type;
      shape.other_down.reset();
      if (down.type != gate.type) shape.other_down = down.type;
      layer.blob_bytes = BlobBytes(shape);
    }
    plan.total_bytes +=
        layer.blob_bytes * static_cast<int64_t>(layer.experts.size());
  }
}

}  // namespace bullpen
