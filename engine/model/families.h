#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/config.h"
#include "engine/model/config_fields.h"

namespace bullpen {

// Where a family's checkpoint keeps each tensor: $0 is the layer, $1 the
// expert. Empty: the family has no such tensor.
struct TensorNames {
  std::string_view embed = {};
  std::string_view final_norm = {};
  std::string_view head = {};
  std::string_view attn_norm = {};
  std::string_view q = {}, k = {}, v = {}, o = {};
  std::string_view q_bias = {}, k_bias = {}, v_bias = {}, o_bias = {};
  std::string_view q_norm = {}, k_norm = {};
  std::string_view ffn_norm = {};
  std::string_view dense_gate = {}, dense_up = {}, dense_down = {};
  std::string_view router = {}, choice_bias = {};
  std::string_view shared_router = {};
  std::string_view shared_gate = {}, shared_up = {}, shared_down = {};
  std::string_view expert_gate = {}, expert_up = {}, expert_down = {};
  // All experts of a layer in one tensor: [E, 2I, H], gate rows first, and
  // [E, H, I].
  std::string_view fused_gate_up = {}, fused_down = {};
  // The same with gate and up apart, [E, I, H] each.
  std::string_view stacked_gate = {}, stacked_up = {};
};

// A model family: one entry of the table in families.cc.
struct Family {
  std::string_view model_type;
  TensorNames names;
  // Fills the switches that differ between families; the keys that all share
  // are already read. Errors go into the fields.
  void (*read)(ConfigFields& fields, ModelConfig& config);
};

// InvalidArgument lists the supported families.
absl::StatusOr<const Family*> FindFamily(std::string_view model_type);

}  // namespace bullpen
