#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/experts/expert.h"

namespace bullpen {

// Which experts each token was sent to, in each layer, as a model recorded it:
// ids and weights of experts, never text, and the ids of tokens only where that
// was asked for. See trace_file.h for its files.
class RoutingTrace {
 public:
  // What one layer chose for one token.
  struct Choice {
    int32_t turn = 0;  // of the conversation
    Phase phase = Phase::kDecode;
    int32_t step = 0;  // the token's place in its turn and phase
    int32_t layer = 0;
    int32_t token = -1;  // its id; -1: not recorded
    int64_t first = 0;   // into experts and weights
    int32_t count = 0;
  };

  // The CSV of "# route_trace v1": comment lines, of which "# model=" gives
  // n_layer and n_expert and "# layer=" expert_bytes, then a line of names
  //   turn,phase,step,layer,slot,expert,weight[,...]
  // and a row per token, layer and rank ("slot"), the rows of one token and
  // layer in a block; phase 0 = prefill, 1 = decode. A column token_id may
  // stand anywhere behind the weight. InvalidArgument names the line, the field
  // and what is allowed.
  static absl::StatusOr<RoutingTrace> ParseCsv(std::string_view text);
  std::string ToCsv() const;

  // Makes a trace of `expert_bytes.size()` layers of `experts` experts.
  RoutingTrace(int32_t experts, std::vector<int64_t> expert_bytes);
  // `choice`'s first and count are set here. InvalidArgument for a layer or
  // expert that there is not, one chosen twice, a weight that is no number, or
  // a token's id where the others have none and the other way round.
  absl::Status Add(const Choice& choice, std::span<const int32_t> experts,
                   std::span<const float> weights);

  int32_t layers() const { return static_cast<int32_t>(expert_bytes_.size()); }
  int32_t experts() const { return experts_; }  // per layer
  int32_t top_k() const { return top_k_; }      // the most that a token chose
  int64_t expert_bytes(int32_t layer) const { return expert_bytes_[layer]; }
  // Above all token ids; 0: the trace has none.
  int32_t vocab() const { return vocab_; }
  // In the order of the file.
  std::span<const Choice> choices() const { return choices_; }
  std::span<const int32_t> chosen(const Choice& choice) const {
    return std::span(chosen_).subspan(choice.first, choice.count);
  }
  std::span<const float> weights(const Choice& choice) const {
    return std::span(weights_).subspan(choice.first, choice.count);
  }

 private:
  friend class TraceCsvReader;
  RoutingTrace() = default;
  int32_t experts_ = 0;
  int32_t top_k_ = 0;
  int32_t vocab_ = 0;
  std::vector<int64_t> expert_bytes_;  // by layer; 0 = not given
  std::vector<Choice> choices_;
  std::vector<int32_t> chosen_;
  std::vector<float> weights_;
};

}  // namespace bullpen
