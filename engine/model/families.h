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
  std::string_view final_norm = {}, final_norm_bias = {};
  std::string_view head = {}, head_bias = {};
  std::string_view attn_norm = {}, attn_norm_bias = {};
  std::string_view q = {}, k = {}, v = {}, o = {};
  std::string_view q_bias = {}, k_bias = {}, v_bias = {}, o_bias = {};
  std::string_view q_norm = {}, k_norm = {};
  std::string_view sinks = {};
  // Latent attention: down to the latents, their norms, and up from them;
  // kv_b has each head's rows for keys, then those for values.
  std::string_view q_a = {}, q_a_bias = {}, q_a_norm = {}, q_b = {};
  std::string_view kv_a = {}, kv_a_bias = {}, kv_a_norm = {}, kv_b = {};
  // kv_b in two, as GGUF files have it: each head's [rank, nope] for keys,
  // already transposed, and [value, rank].
  std::string_view split_k_b = {}, split_v_b = {};
  std::string_view ffn_norm = {}, ffn_norm_bias = {};
  std::string_view dense_gate = {}, dense_up = {}, dense_down = {};
  std::string_view dense_gate_bias = {}, dense_up_bias = {};
  std::string_view dense_down_bias = {};
  std::string_view router = {}, router_bias = {}, choice_bias = {};
  std::string_view shared_router = {};
  std::string_view shared_gate = {}, shared_up = {}, shared_down = {};
  std::string_view shared_gate_bias = {}, shared_up_bias = {};
  std::string_view shared_down_bias = {};
  std::string_view expert_gate = {}, expert_up = {}, expert_down = {};
  // All experts of a layer in one tensor: [E, 2I, H], gate rows first, and
  // [E, H, I].
  std::string_view fused_gate_up = {}, fused_down = {};
  // The same with gate and up apart, [E, I, H] each.
  std::string_view stacked_gate = {}, stacked_up = {};
  std::string_view stacked_gate_bias = {}, stacked_up_bias = {};
  std::string_view stacked_down_bias = {};
  // gpt-oss: gate and up take turns, and the tensors are [E, H, 2I] and
  // [E, I, H]. Packed, they are MXFP4 as [E, 2I, H] and [E, H, I].
  std::string_view turned_gate_up = {}, turned_down = {};
  std::string_view packed_gate_up = {}, packed_down = {};
  std::string_view turned_gate_up_bias = {}, turned_down_bias = {};
  // How all names of what predicts further tokens begin, where that is not a
  // layer behind the last one. Nothing of it is read.
  std::string_view further_tokens = {};
};

// What a key means that config.json does not have.
struct FamilyDefaults {
  double norm_eps = 1e-6;
  double rope_theta = 10000;
  bool tied_head = false;
};

// A model family: one entry of the table in families.cc.
struct Family {
  std::string_view model_type;
  TensorNames names;
  // Fills the switches that differ between families; the keys that all share
  // are already read. Errors go into the fields.
  void (*read)(ConfigFields& fields, ModelConfig& config);
  FamilyDefaults defaults = {};
};

// InvalidArgument lists the supported families.
absl::StatusOr<const Family*> FindFamily(std::string_view model_type);

}  // namespace bullpen
