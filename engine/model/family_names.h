#pragma once

#include "engine/model/families.h"

// The names that checkpoints on model hubs use, and transformers with them.

namespace bullpen {

// What most families call their tensors; each changes what it calls otherwise.
inline constexpr TensorNames kCommonNames = {
    .embed = "model.embed_tokens.weight",
    .final_norm = "model.norm.weight",
    .final_norm_bias = "model.norm.bias",
    .head = "lm_head.weight",
    .head_bias = "lm_head.bias",
    .attn_norm = "model.layers.$0.input_layernorm.weight",
    .attn_norm_bias = "model.layers.$0.input_layernorm.bias",
    .q = "model.layers.$0.self_attn.q_proj.weight",
    .k = "model.layers.$0.self_attn.k_proj.weight",
    .v = "model.layers.$0.self_attn.v_proj.weight",
    .o = "model.layers.$0.self_attn.o_proj.weight",
    .q_bias = "model.layers.$0.self_attn.q_proj.bias",
    .k_bias = "model.layers.$0.self_attn.k_proj.bias",
    .v_bias = "model.layers.$0.self_attn.v_proj.bias",
    .o_bias = "model.layers.$0.self_attn.o_proj.bias",
    .q_norm = "model.layers.$0.self_attn.q_norm.weight",
    .k_norm = "model.layers.$0.self_attn.k_norm.weight",
    .sinks = "model.layers.$0.self_attn.sinks",
    .q_a = "model.layers.$0.self_attn.q_a_proj.weight",
    .q_a_bias = "model.layers.$0.self_attn.q_a_proj.bias",
    .q_a_norm = "model.layers.$0.self_attn.q_a_layernorm.weight",
    .q_b = "model.layers.$0.self_attn.q_b_proj.weight",
    .kv_a = "model.layers.$0.self_attn.kv_a_proj_with_mqa.weight",
    .kv_a_bias = "model.layers.$0.self_attn.kv_a_proj_with_mqa.bias",
    .kv_a_norm = "model.layers.$0.self_attn.kv_a_layernorm.weight",
    .kv_b = "model.layers.$0.self_attn.kv_b_proj.weight",
    .ffn_norm = "model.layers.$0.post_attention_layernorm.weight",
    .ffn_norm_bias = "model.layers.$0.post_attention_layernorm.bias",
    .dense_gate = "model.layers.$0.mlp.gate_proj.weight",
    .dense_up = "model.layers.$0.mlp.up_proj.weight",
    .dense_down = "model.layers.$0.mlp.down_proj.weight",
    .dense_gate_bias = "model.layers.$0.mlp.gate_proj.bias",
    .dense_up_bias = "model.layers.$0.mlp.up_proj.bias",
    .dense_down_bias = "model.layers.$0.mlp.down_proj.bias",
    .router = "model.layers.$0.mlp.gate.weight",
    .choice_bias = "model.layers.$0.mlp.gate.e_score_correction_bias",
    .shared_router = "model.layers.$0.mlp.shared_expert_gate.weight",
    .shared_gate = "model.layers.$0.mlp.shared_experts.gate_proj.weight",
    .shared_up = "model.layers.$0.mlp.shared_experts.up_proj.weight",
    .shared_down = "model.layers.$0.mlp.shared_experts.down_proj.weight",
    .shared_gate_bias = "model.layers.$0.mlp.shared_experts.gate_proj.bias",
    .shared_up_bias = "model.layers.$0.mlp.shared_experts.up_proj.bias",
    .shared_down_bias = "model.layers.$0.mlp.shared_experts.down_proj.bias",
    .expert_gate = "model.layers.$0.mlp.experts.$1.gate_proj.weight",
    .expert_up = "model.layers.$0.mlp.experts.$1.up_proj.weight",
    .expert_down = "model.layers.$0.mlp.experts.$1.down_proj.weight",
    .fused_gate_up = "model.layers.$0.mlp.experts.gate_up_proj",
    .fused_down = "model.layers.$0.mlp.experts.down_proj",
};

constexpr TensorNames MixtralNames() {
  TensorNames names = kCommonNames;
  names.router = "model.layers.$0.block_sparse_moe.gate.weight";
  names.choice_bias =
      "model.layers.$0.block_sparse_moe.e_score_correction_bias";
  names.expert_gate = "model.layers.$0.block_sparse_moe.experts.$1.w1.weight";
  names.expert_up = "model.layers.$0.block_sparse_moe.experts.$1.w3.weight";
  names.expert_down = "model.layers.$0.block_sparse_moe.experts.$1.w2.weight";
  return names;
}

constexpr TensorNames Qwen2MoeNames() {
  TensorNames names = kCommonNames;
  names.shared_gate = "model.layers.$0.mlp.shared_expert.gate_proj.weight";
  names.shared_up = "model.layers.$0.mlp.shared_expert.up_proj.weight";
  names.shared_down = "model.layers.$0.mlp.shared_expert.down_proj.weight";
  return names;
}

constexpr TensorNames ErnieNames() {
  TensorNames names = kCommonNames;
  names.choice_bias = "model.layers.$0.mlp.moe_statics.e_score_correction_bias";
  names.further_tokens = "model.mtp_";
  return names;
}

constexpr TensorNames FlexOlmoNames() {
  TensorNames names = kCommonNames;
  names.attn_norm = "model.layers.$0.post_attention_layernorm.weight";
  names.ffn_norm = "model.layers.$0.post_feedforward_layernorm.weight";
  return names;
}

constexpr TensorNames GraniteMoeNames() {
  TensorNames names = kCommonNames;
  names.router = "model.layers.$0.block_sparse_moe.router.layer.weight";
  names.fused_gate_up = "model.layers.$0.block_sparse_moe.input_linear.weight";
  names.fused_down = "model.layers.$0.block_sparse_moe.output_linear.weight";
  return names;
}

constexpr TensorNames GptOssNames() {
  TensorNames names = kCommonNames;
  names.router = "model.layers.$0.mlp.router.weight";
  names.router_bias = "model.layers.$0.mlp.router.bias";
  names.turned_gate_up = "model.layers.$0.mlp.experts.gate_up_proj";
  names.turned_down = "model.layers.$0.mlp.experts.down_proj";
  names.packed_gate_up = "model.layers.$0.mlp.experts.gate_up_proj_blocks";
  names.packed_down = "model.layers.$0.mlp.experts.down_proj_blocks";
  names.turned_gate_up_bias = "model.layers.$0.mlp.experts.gate_up_proj_bias";
  names.turned_down_bias = "model.layers.$0.mlp.experts.down_proj_bias";
  return names;
}

}  // namespace bullpen
