#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/metrics.h"
#include "engine/engine.h"
#include "engine/model/tokenizer.h"
#include "server/chat_template.h"
#include "server/translate.h"

namespace bullpen {

// What both front ends serve from. Made by main; front ends hold a reference
// that outlives them. The model parts are set once, by SetReady.
class Service {
 public:
  Service(RequestLimits limits, Metrics& metrics)
      : limits_(limits), metrics_(metrics) {}

  enum class State { kLoading, kReady, kDraining };
  State state() const { return state_.load(); }

  // Main thread, once the model is loaded.
  void SetReady(std::unique_ptr<Engine> engine,
                std::unique_ptr<Tokenizer> tokenizer,
                std::unique_ptr<ChatTemplate> chat, ModelFacts facts);
  // Any thread. Refuses new work from now on, for good; what runs goes on.
  void SetDraining();

  // Unavailable while loading or draining, saying which; OK else.
  absl::Status CheckReady() const;

  // Valid once state() has been kReady.
  Engine& engine() { return *engine_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  ChatTemplate& chat() { return *chat_; }
  const ModelFacts& facts() const { return facts_; }
  const RequestLimits& limits() const { return limits_; }
  Metrics& metrics() { return metrics_; }

 private:
  std::atomic<State> state_{State::kLoading};
  RequestLimits limits_;
  Metrics& metrics_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_;
  ModelFacts facts_;
};

}  // namespace bullpen
