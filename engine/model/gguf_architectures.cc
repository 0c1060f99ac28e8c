#include "engine/model/gguf_architectures.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "base/strings.h"
#include "engine/model/config_fields.h"

namespace bullpen {
namespace {

constexpr TensorNames kCommonNames = {
    .embed = "token_embd.weight",
    .final_norm = "output_norm.weight",
    .head = "output.weight",
    .attn_norm = "blk.$0.attn_norm.weight",
    .q = "blk.$0.attn_q.weight",
    .k = "blk.$0.attn_k.weight",
    .v = "blk.$0.attn_v.weight",
    .o = "blk.$0.attn_output.weight",
    .q_bias = "blk.$0.attn_q.bias",
    .k_bias = "blk.$0.attn_k.bias",
    .v_bias = "blk.$0.attn_v.bias",
    .o_bias = "blk.$0.attn_output.bias",
    .q_norm = "blk.$0.attn_q_norm.weight",
    .k_norm = "blk.$0.attn_k_norm.weight",
    .ffn_norm = "blk.$0.ffn_norm.weight",
    .dense_gate = "blk.$0.ffn_gate.weight",
    .dense_up = "blk.$0.ffn_up.weight",
    .dense_down = "blk.$0.ffn_down.weight",
    .dense_gate_bias = "blk.$0.ffn_gate.bias",
    .dense_up_bias = "blk.$0.ffn_up.bias",
    .dense_down_bias = "blk.$0.ffn_down.bias",
    .router = "blk.$0.ffn_gate_inp.weight",
    .choice_bias = "blk.$0.exp_probs_b.bias",
    .shared_router = "blk.$0.ffn_gate_inp_shexp.weight",
    .shared_gate = "blk.$0.ffn_gate_shexp.weight",
    .shared_up = "blk.$0.ffn_up_shexp.weight",
    .shared_down = "blk.$0.ffn_down_shexp.weight",
    // As Mixtral's first files have them; since then experts are stacked.
    .expert_gate = "blk.$0.ffn_gate.$1.weight",
    .expert_up = "blk.$0.ffn_up.$1.weight",
    .expert_down = "blk.$0.ffn_down.$1.weight",
    .fused_gate_up = "blk.$0.ffn_gate_up_exps.weight",
    .fused_down = "blk.$0.ffn_down_exps.weight",
    .stacked_gate = "blk.$0.ffn_gate_exps.weight",
    .stacked_up = "blk.$0.ffn_up_exps.weight",
};

constexpr TensorNames GptOssNames() {
  TensorNames names = kCommonNames;
  names.ffn_norm = "blk.$0.post_attention_norm.weight";
  names.sinks = "blk.$0.attn_sinks.weight";
  names.router_bias = "blk.$0.ffn_gate_inp.bias";
  names.stacked_gate_bias = "blk.$0.ffn_gate_exps.bias";
  names.stacked_up_bias = "blk.$0.ffn_up_exps.bias";
  names.stacked_down_bias = "blk.$0.ffn_down_exps.bias";
  return names;
}

constexpr TensorNames DeepseekNames() {
  TensorNames names = kCommonNames;
  names.q_a = "blk.$0.attn_q_a.weight";
  names.q_a_norm = "blk.$0.attn_q_a_norm.weight";
  names.q_b = "blk.$0.attn_q_b.weight";
  names.kv_a = "blk.$0.attn_kv_a_mqa.weight";
  names.kv_a_norm = "blk.$0.attn_kv_a_norm.weight";
  names.kv_b = "blk.$0.attn_kv_b.weight";
  names.split_k_b = "blk.$0.attn_k_b.weight";
  names.split_v_b = "blk.$0.attn_v_b.weight";
  return names;
}

constexpr TensorNames PostAttentionNormNames() {
  TensorNames names = kCommonNames;
  names.ffn_norm = "blk.$0.post_attention_norm.weight";
  return names;
}

// The width of an expert; files of the first years have only that of the
// dense FFN, which is the same there.
void MapExpertWidth(GgufMapping& m, const char* key) {
  const std::string wide = m.Key("feed_forward_length");
  const std::string own = m.Key("expert_feed_forward_length");
  m.config[key] = m.fields.Int(m.fields.Has(own) ? own : wide);
}

void MapExperts(GgufMapping& m, const char* count_key) {
  m.config[count_key] = m.fields.Int(m.Key("expert_count"));
  m.config["num_experts_per_tok"] = m.fields.Int(m.Key("expert_used_count"));
}

// How scores become weights must be what the family does; the values are
// those of llama.cpp: 1 softmax, 2 sigmoid.
void RequireGating(GgufMapping& m, int64_t wanted) {
  const std::string key = m.Key("expert_gating_func");
  const int64_t gating = m.fields.Int(key, wanted);
  if (gating != wanted && gating != 0) {
    m.fields.Refuse(key, absl::StrCat("this architecture has ", wanted));
  }
}

// Layers without a router are dense: the metadata do not list them.
void MapDenseLayers(GgufMapping& m) {
  nlohmann::json dense = nlohmann::json::array();
  const int64_t layers = m.config["num_hidden_layers"].get<int64_t>();
  for (int64_t l = 0; l < std::min<int64_t>(layers, 4096); ++l) {
    if (!m.HasTensor(absl::StrCat("blk.", l, ".ffn_gate_inp.weight"))) {
      dense.push_back(l);
    }
  }
  m.config["mlp_only_layers"] = std::move(dense);
}

void MapQwen3Moe(GgufMapping& m) {
  m.config["model_type"] = "qwen3_moe";
  MapExperts(m, "num_experts");
  MapExpertWidth(m, "moe_intermediate_size");
  MapDenseLayers(m);
  m.config["norm_topk_prob"] =
      m.fields.Bool(m.Key("expert_weights_norm"), true);
  RequireGating(m, 1);
}

void MapQwen3(GgufMapping& m) { m.config["model_type"] = "qwen3"; }

// The first files have the width of a dense FFN only: the shared expert is as
// wide, and the experts of a token are together.
void MapQwen2MoeWidths(GgufMapping& m) {
  const std::string wide = m.Key("feed_forward_length");
  const std::string shared = m.Key("expert_shared_feed_forward_length");
  m.config["shared_expert_intermediate_size"] =
      m.fields.Int(m.fields.Has(shared) ? shared : wide);
  const std::string own = m.Key("expert_feed_forward_length");
  const int64_t used = m.fields.Int(m.Key("expert_used_count"));
  m.config["moe_intermediate_size"] = m.fields.Has(own) || used < 1
                                          ? m.fields.Int(own)
                                          : m.fields.Int(wide) / used;
}

void MapQwen2Moe(GgufMapping& m) {
  m.config["model_type"] = "qwen2_moe";
  MapExperts(m, "num_experts");
  MapQwen2MoeWidths(m);
  MapDenseLayers(m);
  m.config["norm_topk_prob"] =
      m.fields.Bool(m.Key("expert_weights_norm"), false);
  m.config["qkv_bias"] = m.HasTensor("blk.0.attn_q.bias");
  RequireGating(m, 1);
}

void MapOlmoe(GgufMapping& m) {
  m.config["model_type"] = "olmoe";
  MapExperts(m, "num_experts");
  MapExpertWidth(m, "intermediate_size");
  m.config["norm_topk_prob"] =
      m.fields.Bool(m.Key("expert_weights_norm"), false);
  const std::string clamp = m.Key("attention.clamp_kqv");
  if (m.fields.Number(clamp, 0) > 0) {
    m.config["clip_qkv"] = m.fields.Number(clamp, 0);
  }
  RequireGating(m, 1);
}

// Dense, or Mixtral.
void MapLlama(GgufMapping& m) {
  if (m.fields.Int(m.Key("expert_count"), 0) == 0) {
    m.config["model_type"] = "llama";
    m.config["attention_bias"] = m.HasTensor("blk.0.attn_q.bias");
    m.config["attention_out_bias"] = m.HasTensor("blk.0.attn_output.bias");
    m.config["mlp_bias"] = m.HasTensor("blk.0.ffn_gate.bias");
    return;
  }
  m.config["model_type"] = "mixtral";
  MapExperts(m, "num_local_experts");
  MapExpertWidth(m, "intermediate_size");
  m.fields.RequireOneOf(m.Key("expert_weights_norm"), {{1.0}});
  RequireGating(m, 1);
}

// The experts of DeepSeek and of those after it.
void MapSharedExperts(GgufMapping& m) {
  MapExperts(m, "n_routed_experts");
  MapExpertWidth(m, "moe_intermediate_size");
  m.config["n_shared_experts"] = m.fields.Int(m.Key("expert_shared_count"), 0);
  m.config["first_k_dense_replace"] =
      m.fields.Int(m.Key("leading_dense_block_count"), 0);
  m.config["routed_scaling_factor"] =
      m.fields.Number(m.Key("expert_weights_scale"), 1);
  m.config["n_group"] = m.fields.Int(m.Key("expert_group_count"), 1);
  m.config["topk_group"] = m.fields.Int(m.Key("expert_group_used_count"), 1);
}

void MapGlm4Moe(GgufMapping& m) {
  m.config["model_type"] = "glm4_moe";
  MapSharedExperts(m);
  m.config["norm_topk_prob"] =
      m.fields.Bool(m.Key("expert_weights_norm"), true);
  m.config["attention_bias"] = m.HasTensor("blk.0.attn_q.bias");
  m.config["use_qk_norm"] = m.HasTensor("blk.0.attn_q_norm.weight");
  // Solar Open rotates whole heads, where GLM's own default is a half.
  m.config.emplace("partial_rotary_factor", 1.0);
  m.config["num_nextn_predict_layers"] =
      m.fields.Int(m.Key("nextn_predict_layers"), 0);
  RequireGating(m, 2);
}

void MapGptOss(GgufMapping& m) {
  m.config["model_type"] = "gpt_oss";
  MapExperts(m, "num_local_experts");
  MapExpertWidth(m, "intermediate_size");
  m.config["attention_bias"] = true;
  m.config["sliding_window"] =
      m.fields.Int(m.Key("attention.sliding_window"), 128);
  const std::string clamp = m.Key("swiglu_clamp_exp");
  const std::vector<double> limits = m.fields.Numbers(clamp);
  if (!limits.empty()) {
    m.config["swiglu_limit"] = limits.front();
    m.fields.RequireOneOf(clamp, {&limits.front(), 1});
  }
  m.fields.RequireOneOf(m.Key("attention.sliding_window_pattern"), {{2.0}});
  // The released configs say so; the file has no key for it.
  if (m.config.contains("rope_scaling")) {
    m.config["rope_scaling"]["truncate"] = false;
  } else {
    m.config["rope_scaling"] = nullptr;  // None, where a config has a default.
  }
}

// DeepSeek-V2 scores by softmax, V3 by sigmoid with a bias for the choice. A
// file that does not say, as the first of GLM-4.7-Flash, has the bias or not.
bool ScoresBySigmoid(GgufMapping& m) {
  constexpr int64_t kSigmoid = 2;
  const int64_t gating = m.fields.Int(m.Key("expert_gating_func"), 0);
  if (gating != 0) return gating == kSigmoid;
  return std::ranges::any_of(m.tensors, [](const auto& tensor) {
    return tensor.first.ends_with(".exp_probs_b.bias");
  });
}

void MapDeepseek2(GgufMapping& m) {
  const int64_t rotary = m.fields.Int(m.Key("rope.dimension_count"));
  const auto mla = [&](const char* key) {
    const std::string own = m.Key(absl::StrCat(key, "_mla"));
    return m.fields.Int(m.fields.Has(own) ? own : m.Key(key));
  };
  m.config["kv_lora_rank"] = m.fields.Int(m.Key("attention.kv_lora_rank"));
  const std::string q_rank = m.Key("attention.q_lora_rank");
  m.config["q_lora_rank"] = nullptr;
  if (m.HasTensor("blk.0.attn_q_a.weight")) {
    m.config["q_lora_rank"] = m.fields.Int(q_rank);
  }
  m.config["qk_rope_head_dim"] = rotary;
  m.config["qk_nope_head_dim"] = mla("attention.key_length") - rotary;
  m.config["v_head_dim"] = mla("attention.value_length");
  m.config["num_key_value_heads"] = m.config["num_attention_heads"];
  MapSharedExperts(m);
  const bool sigmoid = ScoresBySigmoid(m);
  RequireGating(m, sigmoid ? 2 : 1);
  m.config["model_type"] = sigmoid ? "deepseek_v3" : "deepseek_v2";
  const int64_t groups = m.fields.Int(m.Key("expert_group_count"), 1);
  if (sigmoid) {
    m.config["norm_topk_prob"] =
        m.fields.Bool(m.Key("expert_weights_norm"), true);
    m.config["num_nextn_predict_layers"] =
        m.fields.Int(m.Key("nextn_predict_layers"), 0);
  } else {
    m.config["topk_method"] = groups > 1 ? "group_limited_greedy" : "greedy";
    const std::string norm = m.Key("expert_weights_norm");
    if (m.fields.Bool(norm, false)) m.fields.Refuse(norm, "only false is");
  }
}

constexpr GgufArchitecture kArchitectures[] = {
    {"deepseek2", DeepseekNames(), false, MapDeepseek2},
    {"glm4moe", PostAttentionNormNames(), false, MapGlm4Moe},
    {"gpt-oss", GptOssNames(), false, MapGptOss},
    {"llama", kCommonNames, /*interleaved_qk=*/true, MapLlama},
    {"olmoe", kCommonNames, false, MapOlmoe},
    {"qwen2moe", kCommonNames, false, MapQwen2Moe},
    {"qwen3", kCommonNames, false, MapQwen3},
    {"qwen3moe", kCommonNames, false, MapQwen3Moe},
};

}  // namespace

absl::StatusOr<const GgufArchitecture*> FindGgufArchitecture(
    std::string_view name) {
  std::vector<std::string> known;
  for (const GgufArchitecture& architecture : kArchitectures) {
    if (architecture.name == name) return &architecture;
    known.emplace_back(architecture.name);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "general.architecture '", Printable(name),
      "' is not supported; supported are ", absl::StrJoin(known, ", ")));
}

}  // namespace bullpen
