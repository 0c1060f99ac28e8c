#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/model/config.h"
#include "kernels/kv_layout.h"

namespace bullpen {

// "f32", "f16" or "int8"; InvalidArgument lists them.
absl::StatusOr<kernels::KvType> ParseKvType(std::string_view name);

// What one layer's KV cache holds; without memory.
kernels::KvLayer KvShape(const ModelConfig& config, kernels::KvType type);

}  // namespace bullpen
