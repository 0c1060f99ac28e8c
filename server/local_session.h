#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "server/load_service.h"
#include "server/translate.h"

namespace bullpen {

// A file descriptor that the engine makes readable when tokens are ready, so
// that a terminal program can wait for them and for signals at once.
class ReadyEvent {
 public:
  ReadyEvent();
  ~ReadyEvent();
  ReadyEvent(const ReadyEvent&) = delete;

  void Set() const;
  void Clear() const;
  int fd() const { return fd_; }

 private:
  int fd_;
};

// Takes SIGINT out of its ordinary course: it makes fd() readable instead of
// ending the process. Made before any thread, so that all of them inherit it.
class InterruptEvent {
 public:
  InterruptEvent();
  ~InterruptEvent();
  InterruptEvent(const InterruptEvent&) = delete;

  // Whether SIGINT came since the last call.
  bool Take() const;
  int fd() const { return fd_; }

 private:
  int fd_;
};

// A model in this process for one user at a terminal: no sockets. One thread.
class LocalSession {
 public:
  static absl::StatusOr<std::unique_ptr<LocalSession>> Load(
      const LoadOptions& options);

  // What came of one generation.
  struct Outcome {
    Finished finished;
    uint64_t seed = 0;
    std::string text;
    std::vector<int32_t> ids;
    bool interrupted = false;
  };
  // Gives text as it comes; an interrupt ends the generation.
  absl::StatusOr<Outcome> Generate(
      const GenerateParams& params,
      const std::function<void(std::string_view)>& on_text,
      const InterruptEvent* interrupt);

  ChatTemplate& chat() { return *model_.chat; }
  const ModelFacts& facts() const { return model_.facts; }

 private:
  LocalSession() = default;

  Metrics metrics_;
  ReadyEvent ready_;
  LoadedModel model_;
};

}  // namespace bullpen
