#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "tools/options.h"

namespace bullpen {

// The heading of ModelFlags in the help.
inline constexpr char kModelFlagsGroup[] = "Running the model";

// How to load a model; the same for every subcommand that runs one.
struct ModelFlags {
  std::filesystem::path cache_dir;
  Bytes memory;
  Bytes kv_memory;
  Bytes expert_memory;
  int32_t threads = 0;
  std::string numa = "auto";
  std::string isa = "auto";
  std::string activations = "int8";
  std::string kv_type = "f32";
  int32_t context = 0;
  int32_t max_sequences = 8;
  int32_t max_batch_tokens = 256;
  std::string policy = "crf";
  double half_life = 0;
  std::string expert_slots = "layer";
  int32_t layer_floor = 0;
  std::string verify_experts = "always";
  std::string prefetch = "auto";
  std::string predictors = "all";
  int32_t prefetch_horizon = 2;
  std::filesystem::path profile;
  int32_t oracle_window = 256;
  Rate io_limit;

  // Lists every field once: names, defaults, help and parsing follow from it.
  template <typename Visitor>
  void ForEach(Visitor&& visit) {
    visit("cache_dir", cache_dir, "where packed copies of models are kept");
    visit("memory", memory,
          "memory for weights, KV cache and experts together, such as 12GiB; "
          "0: 80 % of what is available");
    visit("kv_memory", kv_memory, "the part of it for the KV cache; 0: chosen");
    visit("expert_memory", expert_memory,
          "the part of it for experts; 0: what is left");
    visit("threads", threads, "compute threads; 0: all CPUs");
    visit("numa", numa,
          "several NUMA nodes: distribute (threads and memory over them), "
          "isolate (both on one), off, or auto (distribute if there are two)");
    visit("isa", isa, "instruction set: auto, oracle, avx2 or avx512");
    visit("activations", activations,
          "what quantised weights multiply: int8 (8-bit blocks, fast) or f32 "
          "(exact)");
    visit("kv_type", kv_type, "type of the KV cache: f32, f16 or int8");
    visit("context", context, "tokens a request may have; 0: the model's own");
    visit("max_sequences", max_sequences, "requests that run at a time");
    visit("max_batch_tokens", max_batch_tokens,
          "rows of one step; longer prompts are computed in parts");
    visit("policy", policy,
          "which expert leaves memory first: crf (least likely next), lru, lfu "
          "or static (what the requests of --profile used least)");
    visit("half_life", half_life,
          "of crf, in tokens, which is then frequency alone; 0: its rule is "
          "chosen while it runs");
    visit("expert_slots", expert_slots,
          "each layer's own (layer), or moving between layers (shared)");
    visit("layer_floor", layer_floor,
          "slots that a layer keeps of shared ones; 0: a token's experts");
    visit("verify_experts", verify_experts,
          "compare an expert with its checksum at each load (always) or at its "
          "first (once), which leaves the CPUs more time");
    visit("prefetch", prefetch,
          "load experts before they are asked for: auto (while it pays), on "
          "or off");
    visit("prefetch_horizon", prefetch_horizon,
          "layers ahead for which experts are guessed");
    visit("predictors", predictors,
          "what guesses are based on: all, or a list of path, popularity, "
          "recent, request, router and token");
    visit("profile", profile,
          "file that keeps what was learnt of the model's routing, counts of "
          "experts only; read at the start, written at the end");
    visit("oracle_window", oracle_window,
          "decoded tokens of which /metrics says what LRU and Belady's rule "
          "would have hit; 0: never");
    visit("io_limit", io_limit,
          "the rate that experts are read with, such as 1GiB/s, to imitate "
          "a slower disk; 0: no limit");
  }
};

// InvalidArgument names the flag, the value and the limit.
absl::StatusOr<ModelOptions> ToModelOptions(const ModelFlags& flags);

}  // namespace bullpen
