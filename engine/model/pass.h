#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/experts/cache.h"
#include "engine/model/activations.h"
#include "engine/model/kv_groups.h"
#include "engine/model/packed_model.h"
#include "kernels/ops.h"

namespace bullpen {

// The rows of one sequence in a batch.
struct SequenceRows {
  std::span<const KvTable> tables;  // of each group of layers
  int32_t first_row = 0;            // its rows in the batch are contiguous
  int32_t rows = 0;
  int32_t first_position = 0;  // position of first_row
  int32_t prompt = 0;          // tokens of its whole prompt, for Rope
  int32_t request = -1;        // whose it is; -1: of nobody to be followed
};

// Replaces what the routers say. For benchmarks with recorded routing; never
// for serving.
struct Reroute {
  // What a layer chose for its rows: [rows, k] experts and weights.
  std::function<void(int layer, std::span<int32_t> chosen,
                     std::span<float> weights)>
      choose = {};
  // What a coming layer's router makes of the present hidden states:
  // RoutingPredictor::Query::router_margins. Empty: left as it is.
  std::function<void(int layer, std::span<float> margins)> look_ahead = {};
};

// Rows that a forward pass multiplies a matrix with.
struct MatrixInput {
  int32_t layer = -1;  // -1: outside of the layers
  // As in PackedModel; shared_up and an expert's up have the input of the
  // gate beside them. Of experts "experts.gate" and "experts.down".
  std::string_view matrix;
  int32_t expert = -1;
  const float* x = nullptr;
  int64_t x_stride = 0;
  const int32_t* x_row = nullptr;  // [rows] row of x; null: 0, 1, 2 ...
  int64_t rows = 0;
  int32_t cols = 0;
};
using InputTap = std::function<void(const MatrixInput&)>;

// How whoever asked for a forward pass follows it and ends it.
struct PassWatch {
  // Called on the engine thread each time that experts have come, or the last
  // of a layer's are computed. What is not OK ends the pass, as its status.
  std::function<absl::Status()> progress = {};
  // Any thread's: once requested, the pass ends at that place with Unavailable,
  // and does not wait for experts to come.
  std::stop_token stop = {};
};

// What one forward pass carries from layer to layer. Engine thread.
struct Pass {
  const kernels::Ops& ops;
  kernels::Stream& stream;
  const Activations& scratch;
  std::span<const SequenceRows> sequences;
  // The same with the tables of each group of layers, [groups][sequences].
  std::span<const std::vector<kernels::KvSequence>> kv;
  int32_t rows = 0;
  Phase phase = Phase::kDecode;
  std::span<absl::Status> sequence_status;  // set to the first failure of each
  const PassWatch& watch;
  const Reroute* reroute = nullptr;     // benchmarks only
  const InputTap* input_tap = nullptr;  // calibration only
  // Called once a layer has routed its rows and the cache knows what it needs:
  // when it would wait for that, or has all of it. May be null.
  const std::function<void(int32_t layer)>* after_route = nullptr;
};

// Scratch to look at a coming layer's router, for some rows.
struct RouterPeek {
  std::vector<float> normed;   // [rows, dim]
  std::vector<float> margins;  // [rows, experts]
  std::vector<float> order;    // [experts]: of one row, partly sorted
};

// Which matrix of a model a product takes, see MatrixInput.
struct MatrixPlace {
  int32_t layer = -1;
  std::string_view matrix;
};
// ops.matmul with room for integers, seen by the tap. Heads' inputs stand side
// by side in a row.
absl::Status Multiply(const Pass& pass, const MatrixPlace& place,
                      const kernels::MatMulArgs& args);

// One norm of the hidden state.
struct NormWeights {
  // "NAME", and "NAME_bias" of a layer norm.
  static NormWeights Of(const ModelConfig& config,
                        const ResidentWeights& weights,
                        const std::string& name);

  const float* weight = nullptr;
  const float* bias = nullptr;  // null: an RMS norm
  int32_t dim = 0;
  float eps = 0;
};

// How a block's output joins the residual stream.
absl::Status NormRows(const Pass& pass, const NormWeights& norm, const float* x,
                      float* y);
// hidden += Norm(y), for families whose norms come after the block.
absl::Status AddNormed(const Pass& pass, const NormWeights& norm, float* y);

}  // namespace bullpen
