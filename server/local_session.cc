#include "server/local_session.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/status.h"
#include "server/text_stream.h"

namespace bullpen {

ReadyEvent::ReadyEvent() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  CHECK(fd_ >= 0) << "no eventfd";
}

ReadyEvent::~ReadyEvent() { close(fd_); }

void ReadyEvent::Set() const {
  // Fails only when it is set already.
  [[maybe_unused]] const int result = eventfd_write(fd_, 1);
}

void ReadyEvent::Clear() const {
  eventfd_t count = 0;
  [[maybe_unused]] const int result = eventfd_read(fd_, &count);
}

InterruptEvent::InterruptEvent() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  fd_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  CHECK(fd_ >= 0) << "no signalfd";
}

InterruptEvent::~InterruptEvent() { close(fd_); }

bool InterruptEvent::Take() const {
  signalfd_siginfo info;
  bool came = false;
  while (read(fd_, &info, sizeof(info)) == sizeof(info)) came = true;
  return came;
}

absl::StatusOr<std::unique_ptr<LocalSession>> LocalSession::Load(
    const LoadOptions& options) {
  std::unique_ptr<LocalSession> session(new LocalSession());
  ASSIGN_OR_RETURN(session->model_, LoadForServing(options, session->metrics_));
  return session;
}

absl::StatusOr<LocalSession::Outcome> LocalSession::Generate(
    const GenerateParams& params,
    const std::function<void(std::string_view)>& on_text,
    const InterruptEvent* interrupt) {
  ASSIGN_OR_RETURN(
      Request request,
      ToRequest(params, model_.facts, RequestLimits{}, *model_.tokenizer));
  Outcome outcome;
  outcome.seed = request.sampling.seed;
  TextStream text(*model_.tokenizer, params.stop);
  const auto give = [&](const std::string& piece) {
    if (piece.empty()) return;
    outcome.text += piece;
    on_text(piece);
  };
  auto stream = std::make_shared<TokenStream>([this] { ready_.Set(); });
  std::vector<Submission> submissions;
  submissions.push_back({std::move(request), stream});
  RETURN_IF_ERROR(model_.engine->Submit(std::move(submissions)));

  for (bool over = false; !over;) {
    pollfd events[] = {
        {ready_.fd(), POLLIN, 0},
        {interrupt != nullptr ? interrupt->fd() : -1, POLLIN, 0}};
    poll(events, 2, -1);
    if (interrupt != nullptr && interrupt->Take()) {
      outcome.interrupted = true;
      stream->Cancel();
    }
    ready_.Clear();
    TokenStream::Batch batch = stream->Take();
    for (const TokenEvent& event : batch.tokens) {
      if (text.stopped()) break;
      outcome.ids.push_back(event.id);
      give(text.Push(event.id));
    }
    if (text.stopped()) stream->Stop();
    if (batch.finished.has_value()) {
      outcome.finished = *std::move(batch.finished);
      over = true;
    }
  }
  give(text.Flush());
  if (text.stopped()) {
    outcome.finished.reason = FinishReason::kStop;
    outcome.finished.status = absl::OkStatus();
  }
  if (!outcome.finished.status.ok() && !outcome.interrupted) {
    return outcome.finished.status;
  }
  return outcome;
}

}  // namespace bullpen
