#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "base/huge_buffer.h"
#include "engine/model/config.h"

namespace bullpen {

// How many rows, workers and positions one forward pass may have.
struct ActivationLimits {
  int32_t rows = 0;  // tokens of one batch
  int32_t threads = 1;
  int32_t context = 0;  // longest sequence
  bool int8 = false;    // block types multiply integers
};

// All scratch of a forward pass, allocated once. Rows are dense.
struct Activations {
  static int64_t Bytes(const ModelConfig& config,
                       const ActivationLimits& limits);
  // memory_nodes: see HugeBuffer.
  static absl::StatusOr<Activations> Allocate(
      const ModelConfig& config, const ActivationLimits& limits,
      std::span<const int32_t> memory_nodes = {});

  float* hidden = nullptr;  // [rows, dim]: the residual stream
  float* normed = nullptr;  // [rows, dim]
  // [rows, (heads + 2 kv_heads) * head_dim]; of latent attention the latents,
  // [rows, q_rank + kv_rank + rope_dim].
  float* qkv = nullptr;
  float* attended = nullptr;         // [rows, attended_dim]
  float* latent_query = nullptr;     // [rows, heads * head_dim]
  float* latent_attended = nullptr;  // [rows, heads * value_dim]
  float* head_query = nullptr;       // [rows, heads * (nope_dim + rope_dim)]
  float* attention = nullptr;        // [threads, attention_stride]
  float* partials = nullptr;         // [partials_room]
  float* cos = nullptr;              // [rows, rotary_dim / 2]
  float* sin = nullptr;
  float* router_logits = nullptr;   // [rows, experts]
  int32_t* chosen = nullptr;        // [rows, k]
  float* chosen_weights = nullptr;  // [rows, k]
  int32_t* entry_row = nullptr;     // [rows * k], by expert
  int32_t* entry_slot = nullptr;    // [rows * k], by expert
  float* shared_weights = nullptr;  // [rows]: of the shared expert
  int32_t* row_index = nullptr;     // [rows]: 0, 1, 2 ...
  float* expert_out = nullptr;      // [rows * (k + 1), dim]
  float* expert_inner = nullptr;    // [rows * k, 2 * widest inner]
  float* logits = nullptr;          // [rows, vocab]
  // Rows as integers, for one product at a time; null: they stay float.
  std::byte* codes = nullptr;
  std::byte* x_codes = nullptr;  // of the rows that experts share
  int64_t attention_stride = 0;
  int64_t partials_room = 0;

 private:
  HugeBuffer buffer_;
};

}  // namespace bullpen
