#include "engine/model/kv_shape.h"

#include "base/strings.h"

namespace bullpen {

absl::StatusOr<kernels::KvType> ParseKvType(std::string_view name) {
  if (name == "f32") return kernels::KvType::kF32;
  if (name == "f16") return kernels::KvType::kF16;
  if (name == "int8") return kernels::KvType::kInt8;
  return absl::InvalidArgumentError(
      absl::StrCat("kv_type '", Absl(name), "' is not one of f32, f16, int8"));
}

kernels::KvLayer KvShape(const ModelConfig& config, kernels::KvType type) {
  return {.type = type,
          .kv_heads = config.kv_heads,
          .k_dim = config.head_dim,
          .v_dim = config.value_dim,
          .value_in_key = config.is_latent()};
}

}  // namespace bullpen
