#include "server/service.h"

#include <utility>

namespace bullpen {

void Service::SetReady(std::unique_ptr<Engine> engine,
                       std::unique_ptr<Tokenizer> tokenizer,
                       std::unique_ptr<ChatTemplate> chat, ModelFacts facts) {
  engine_ = std::move(engine);
  tokenizer_ = std::move(tokenizer);
  chat_ = std::move(chat);
  facts_ = std::move(facts);
  // A drain that began while the model was loading stays one.
  State expected = State::kLoading;
  state_.compare_exchange_strong(expected, State::kReady);
}

void Service::SetDraining() {
  if (state_.exchange(State::kDraining) == State::kReady) engine_->Drain();
}

absl::Status Service::CheckReady() const {
  switch (state()) {
    case State::kReady:
      return absl::OkStatus();
    case State::kLoading:
      return absl::UnavailableError("the model is still loading");
    case State::kDraining:
      return absl::UnavailableError("the server is shutting down");
  }
  return absl::InternalError("unknown state of the service");
}

}  // namespace bullpen
