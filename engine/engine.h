#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "base/metrics.h"
#include "engine/model/model.h"
#include "engine/request.h"
#include "engine/routing_recorder.h"
#include "engine/scheduler.h"
#include "engine/token_stream.h"

namespace bullpen {

struct EngineConfig {
  int32_t max_queue = 256;  // requests beyond the free running places
  int32_t max_sequences = 8;
  int32_t max_batch_tokens = 256;  // at most the model's
};

struct Submission {
  Request request;
  std::shared_ptr<TokenStream> stream;
};

// Runs the model for requests on its own thread:
// Plan -> Forward -> Sample -> Commit -> Push. That thread alone changes
// sequences, KV blocks, the expert cache and the predictor.
class Engine {
 public:
  Engine(std::unique_ptr<Model> model, const EngineConfig& config,
         Metrics& metrics);
  ~Engine();  // As Stop().

  // Any thread. All of them or none. ResourceExhausted when more than
  // max_queue would wait beyond the free running places; Unavailable after
  // Drain; InvalidArgument for a request that could never run (callers have
  // checked: see Request). Every accepted request gets exactly one Finish.
  absl::Status Submit(std::vector<Submission> submissions);

  // Any thread: refuses new work from now on.
  void Drain();
  // Waits until all accepted work has finished, or the time is up; then ends
  // what is left with Unavailable, amid its step, which waits for no disk.
  // Returns whether all finished by itself.
  bool WaitDrained(Clock::time_point until);
  // Ends everything with Unavailable, likewise, and joins the thread.
  void Stop();

  // Before the first Submit: records what every request is routed to.
  void Record(std::unique_ptr<RoutingRecorder> recorder);

  // Any thread. The last published (at most 0.2 s old while busy).
  CacheSnapshot cache_snapshot() const;
  // Any thread: seconds since the engine thread last showed life: a step
  // began, or experts came that one waited for. For liveness probes. An idle
  // engine is alive.
  double seconds_since_heartbeat() const;

  // Immutable facts.
  const Model& model() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bullpen
