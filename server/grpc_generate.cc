#include "server/grpc_generate.h"

#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "base/trim_memory.h"
#include "boost/asio/post.hpp"
#include "server/grpc_convert.h"
#include "server/grpc_log.h"
#include "server/text_stream.h"
#include "server/translate.h"

namespace bullpen {
namespace {

constexpr int kWorkerThreads = 2;

// A request that passed all checks.
struct Prepared {
  Request request;
  std::vector<std::string> stop;
};

// gRPC's deadlines are wall-clock times; the engine's clock is steady.
std::optional<Clock::time_point> SteadyDeadline(
    const grpc::CallbackServerContext& context) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) {
    return std::nullopt;
  }
  const auto left = deadline - std::chrono::system_clock::now();
  if (left > std::chrono::hours(24 * 365)) return std::nullopt;
  return Clock::now() + left;
}

absl::StatusOr<Prepared> Prepare(const grpc::CallbackServerContext& context,
                                 const v1::GenerateRequest& request,
                                 Service& service) {
  RETURN_IF_ERROR(CheckAwaited(context));
  const std::optional<Clock::time_point> deadline = SteadyDeadline(context);
  Prepared prepared;
  ASSIGN_OR_RETURN(std::string id, RequestId(request));
  ASSIGN_OR_RETURN(GenerateParams params, ToParams(request, service));
  RETURN_IF_ERROR(CheckAwaited(context));  // Rendering may have taken long.
  ASSIGN_OR_RETURN(prepared.request,
                   ToRequest(params, service.facts(), service.limits(),
                             service.tokenizer()));
  prepared.request.id = std::move(id);
  if (deadline.has_value() && prepared.request.deadline > *deadline) {
    prepared.request.deadline = *deadline;
  }
  prepared.stop = std::move(params.stop);
  return prepared;
}

}  // namespace

// One Generate call. gRPC's reactions only post to the writer thread, which
// alone touches the rest. Lives until gRPC has called OnDone and the engine
// has given the terminal event, whichever comes last.
class GenerateCall final
    : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  GenerateCall(uint64_t id, GenerateCalls& calls,
               const grpc::CallbackServerContext& context,
               absl::StatusOr<CallBudget::Share> share)
      : id_(id), calls_(calls), context_(context), share_(std::move(share)) {}

  void OnWriteDone(bool ok) override {
    calls_.writes_.End(context_);
    calls_.PostToWriter([this, ok] { Written(ok); });
  }
  void OnCancel() override {
    calls_.PostToWriter([this] { Cancel(); });
  }
  void OnDone() override {
    calls_.writes_.End(context_);
    calls_.PostToWriter([this] { Done(); });
  }

  // Worker thread, once before Begin.
  absl::StatusOr<Prepared> TakeRequest(const v1::GenerateRequest& request);

  // The rest: writer thread.

  // Hands the request to the engine, or answers with the error.
  void Begin(absl::StatusOr<Prepared> prepared);
  // Writes what is ready unless a write is under way; then the end of that
  // write comes here again, so that tokens gather into one message.
  void Pump();
  bool over() const {
    return done_ && (stream_ == nullptr || finished_.has_value());
  }

 private:
  void Refuse(const absl::Status& status);
  void Written(bool ok);
  void Cancel();
  void Done();
  void Append(const TokenEvent& event);
  void TakeFinished(Finished finished);
  void WriteEnd();

  const uint64_t id_;
  GenerateCalls& calls_;
  const grpc::CallbackServerContext& context_;  // until OnDone
  absl::StatusOr<CallBudget::Share> share_;
  std::shared_ptr<TokenStream> stream_;  // null until submitted
  std::optional<TextStream> text_;
  std::string request_id_;
  uint64_t seed_ = 0;
  int32_t prompt_tokens_ = 0;
  int32_t completion_tokens_ = 0;
  v1::GenerateResponse response_;  // of the write under way
  std::optional<Finished> finished_;
  bool writing_ = false;
  bool ended_ = false;      // Finish was given to gRPC
  bool done_ = false;       // gRPC is done with this object
  bool cancelled_ = false;  // by the client
};

absl::StatusOr<Prepared> GenerateCall::TakeRequest(
    const v1::GenerateRequest& request) {
  absl::StatusOr<Prepared> prepared =
      Prepare(context_, request, calls_.service_);
  // gRPC would keep it until the call is over.
  FreeContent(request);
  share_->GiveBytesBack();
  return prepared;
}

void GenerateCall::Begin(absl::StatusOr<Prepared> prepared) {
  absl::Status status = prepared.status();
  if (status.ok() && cancelled_) {
    status = absl::CancelledError("the client cancelled the request");
  }
  if (status.ok()) {
    request_id_ = prepared->request.id;
    seed_ = prepared->request.sampling.seed;
    prompt_tokens_ = static_cast<int32_t>(prepared->request.prompt.size());
    text_.emplace(calls_.service_.tokenizer(), std::move(prepared->stop));
    stream_ = std::make_shared<TokenStream>([&calls = calls_, id = id_] {
      calls.PostToWriter([&calls, id] { calls.Ready(id); });
    });
    std::vector<Submission> submissions;
    submissions.push_back({std::move(prepared->request), stream_});
    status = calls_.service_.engine().Submit(std::move(submissions));
    if (!status.ok()) stream_ = nullptr;
  }
  if (!status.ok()) Refuse(status);
}

void GenerateCall::Refuse(const absl::Status& status) {
  if (absl::IsInvalidArgument(status) || absl::IsNotFound(status)) {
    calls_.service_.metrics().requests_rejected_invalid.Increment();
  }
  LogGrpcRefused(status);
  ended_ = true;
  Finish(ToGrpcStatus(status));
}

void GenerateCall::Pump() {
  if (stream_ == nullptr || writing_) return;
  TokenStream::Batch batch = stream_->Take();
  if (!ended_) {
    response_.Clear();
    for (const TokenEvent& event : batch.tokens) Append(event);
  }
  if (batch.finished.has_value()) TakeFinished(*std::move(batch.finished));
  if (ended_) return;
  if (finished_.has_value() || text_->stopped()) {
    WriteEnd();
  } else if (response_.tokens_size() > 0) {
    response_.set_request_id(request_id_);
    writing_ = true;
    calls_.writes_.Begin(context_);
    StartWrite(&response_);
  }
}

void GenerateCall::Append(const TokenEvent& event) {
  if (text_->stopped()) return;
  ++completion_tokens_;
  FillToken(event, calls_.service_.tokenizer(), *response_.add_tokens());
  response_.mutable_text()->append(text_->Push(event.id));
  if (text_->stopped()) stream_->Stop();
}

void GenerateCall::TakeFinished(Finished finished) {
  finished_ = std::move(finished);
  Finished logged = *finished_;
  if (text_->stopped()) {
    // The engine ends it some tokens later, or fails before it looks.
    logged.reason = FinishReason::kStop;
    logged.status = absl::OkStatus();
    logged.completion_tokens = completion_tokens_;
  }
  LogGrpcFinished(request_id_, logged);
}

void GenerateCall::WriteEnd() {
  ended_ = true;
  response_.set_request_id(request_id_);
  if (!text_->stopped()) response_.mutable_text()->append(text_->Flush());
  if (!text_->stopped() && !finished_->status.ok()) {
    const grpc::Status status = ToGrpcStatus(finished_->status);
    if (response_.tokens_size() == 0) return Finish(status);
    calls_.writes_.Begin(context_);
    return StartWriteAndFinish(&response_, grpc::WriteOptions(), status);
  }
  const bool length =
      !text_->stopped() && finished_->reason == FinishReason::kLength;
  v1::Finish& finish = *response_.mutable_finish();
  finish.set_reason(length ? v1::FINISH_REASON_LENGTH : v1::FINISH_REASON_STOP);
  v1::Usage& usage = *finish.mutable_usage();
  usage.set_prompt_tokens(prompt_tokens_);
  usage.set_completion_tokens(text_->stopped() ? completion_tokens_
                                               : finished_->completion_tokens);
  usage.set_seed(seed_);
  calls_.writes_.Begin(context_);
  StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
}

void GenerateCall::Written(bool ok) {
  writing_ = false;
  if (!ok) Cancel();
  Pump();
}

void GenerateCall::Cancel() {
  cancelled_ = true;
  if (stream_ != nullptr) stream_->Cancel();
}

void GenerateCall::Done() {
  done_ = true;
  Pump();
  calls_.EraseIfOver(id_);  // May destroy this.
}

GenerateCalls::GenerateCalls(Service& service, PendingWrites& writes)
    : service_(service), writes_(writes), workers_(kWorkerThreads), writer_(1) {
  PostToWriter([this] { WatchWrites(); });
}

GenerateCalls::~GenerateCalls() {
  // Workers post to the writer, so they end first.
  workers_.join();
  PostToWriter([this] {
    ending_ = true;
    next_look_.cancel();
  });
  writer_.join();
}

void GenerateCalls::WatchWrites() {
  if (ending_) return;
  writes_.CancelOld(Clock::now());
  constexpr int kLooksPerLimit = 8;
  next_look_.expires_after(std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double>(writes_.limit_seconds() / kLooksPerLimit)));
  next_look_.async_wait(
      [this](const boost::system::error_code&) { WatchWrites(); });
}

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerateCalls::Start(
    const grpc::CallbackServerContext& context,
    const v1::GenerateRequest& request,
    absl::StatusOr<CallBudget::Share> share) {
  const uint64_t id = next_id_.fetch_add(1);
  const absl::Status status = share.status();
  const int64_t bytes = share.ok() ? share->bytes() : 0;
  auto owned =
      std::make_unique<GenerateCall>(id, *this, context, std::move(share));
  GenerateCall* call = owned.get();
  PostToWriter([this, id, owned = std::move(owned)]() mutable {
    calls_.emplace(id, std::move(owned));
  });
  if (!status.ok()) {
    PostToWriter([call, status] { call->Begin(status); });
    return call;
  }
  // Context and request live until OnDone, which comes after Begin.
  PostToWorker([this, call, &request, bytes] {
    PostToWriter([call, prepared = call->TakeRequest(request)]() mutable {
      call->Begin(std::move(prepared));
    });
    TrimAfter(bytes);
  });
  return call;
}

void GenerateCalls::PostToWorker(absl::AnyInvocable<void()> work) {
  boost::asio::post(workers_, std::move(work));
}

void GenerateCalls::PostToWriter(absl::AnyInvocable<void()> work) {
  boost::asio::post(writer_, std::move(work));
}

void GenerateCalls::Ready(uint64_t id) {
  const auto found = calls_.find(id);
  if (found == calls_.end()) return;
  found->second->Pump();
  EraseIfOver(id);
}

void GenerateCalls::EraseIfOver(uint64_t id) {
  const auto found = calls_.find(id);
  if (found == calls_.end() || !found->second->over()) return;
  calls_.erase(found);
}

}  // namespace bullpen
