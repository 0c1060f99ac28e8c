#include "engine/model/gguf_neutral.h"

#include <span>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace bullpen {
namespace {

// 0 is what llama.cpp takes for "not given" where 1 changes nothing either.
// attention.scale replaces one over the root of the head, so 1 does change it.
constexpr double kOff[] = {0};
constexpr double kScale[] = {0, 1};
constexpr double kOne[] = {1};

struct NeutralValues {
  std::string_view key;  // behind the architecture's name
  std::span<const double> values;
};

constexpr NeutralValues kNeutral[] = {
    {"attention.causal", kOne},
    {"attention.clamp_kqv", kOff},
    {"attention.max_alibi_bias", kOff},
    {"attention.output_scale", kScale},
    {"attention.scale", kOff},
    {"attention.shared_kv_layers", kOff},
    {"attention.temperature_scale", kOff},
    {"attention.value_scale", kScale},
    {"attn_logit_softcapping", kOff},
    {"embedding_scale", kScale},
    {"expert_group_count", kScale},
    {"expert_group_scale", kScale},
    {"expert_group_used_count", kScale},
    {"expert_weights_scale", kScale},
    {"final_logit_softcapping", kOff},
    {"logit_scale", kScale},
    {"residual_scale", kScale},
    {"rope.scaling.alpha", kScale},
    {"rope.scaling.attn_factor", kOne},
    {"router_logit_softcapping", kOff},
    {"swiglu_clamp_exp", kOff},
    {"swiglu_clamp_shexp", kOff},
    {"use_parallel_residual", kOff},
};

// A window that holds the whole context is none.
void RefuseWindow(GgufMapping& m) {
  const std::string key = m.Key("attention.sliding_window");
  if (m.fields.WasRead(key)) return;
  const int64_t window = m.fields.Int(key, 0);
  const int64_t context = m.config["max_position_embeddings"].get<int64_t>();
  if (window != 0 && window < context) {
    m.fields.Refuse(key, absl::StrCat("0 is, and from the context length of ",
                                      context, " on"));
  }
}

// Layers with windows rotate as the others do.
void RefuseWindowBase(GgufMapping& m) {
  const std::string key = m.Key("rope.freq_base_swa");
  const double base = m.config["rope_theta"].get<double>();
  if (m.fields.Number(key, base) == base) return;
  m.fields.Refuse(key, absl::StrCat("rope.freq_base, ", base, ", is"));
}

}  // namespace

void RefuseUnreadKeys(GgufMapping& m) {
  for (const NeutralValues& neutral : kNeutral) {
    const std::string key = m.Key(neutral.key);
    if (m.fields.WasRead(key)) continue;
    m.fields.RequireOneOf(key, neutral.values);
  }
  RefuseWindow(m);
  RefuseWindowBase(m);
}

}  // namespace bullpen
