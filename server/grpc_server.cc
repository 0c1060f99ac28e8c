#include "server/grpc_server.h"

#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/trim_memory.h"
#include "grpc/support/log.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "server/api_keys.h"
#include "server/errors.h"
#include "server/grpc_budget.h"
#include "server/grpc_convert.h"
#include "server/grpc_generate.h"
#include "server/grpc_writes.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

constexpr int kKeepaliveMs = 60'000;  // of silence before a connection is tried
constexpr int kMaxStreamsPerConnection = 1000;

absl::Status Tokenize(bullpen::Service& service,
                      const v1::TokenizeRequest& request,
                      v1::TokenizeResponse& response) {
  if (!IsValidUtf8(request.text())) {
    return FieldError("text", "text is not valid UTF-8");
  }
  const std::vector<int32_t> ids =
      service.tokenizer().Encode(request.text(), request.add_special_tokens());
  response.mutable_ids()->Add(ids.begin(), ids.end());
  return absl::OkStatus();
}

absl::Status Detokenize(bullpen::Service& service,
                        const v1::DetokenizeRequest& request,
                        v1::DetokenizeResponse& response) {
  const std::vector<int32_t> ids(request.ids().begin(), request.ids().end());
  RETURN_IF_ERROR(CheckIds("ids", ids, service.facts().vocab));
  response.set_text(
      service.tokenizer().Decode(ids, request.skip_special_tokens()));
  return absl::OkStatus();
}

// One call that a worker answers. Lives until OnDone, and keeps its share as
// long: the answer takes memory until the client has read it.
template <typename Request, typename Response>
class WorkerCall final : public grpc::ServerUnaryReactor {
 public:
  using Work = absl::Status (*)(bullpen::Service&, const Request&, Response&);

  struct Args {
    const grpc::CallbackServerContext& context;
    const Request& request;
    Response& response;
    GenerateCalls& calls;
    PendingWrites& writes;
  };
  WorkerCall(const Args& args, CallBudget::Share share)
      : args_(args), share_(std::move(share)) {}

  // Worker thread.
  void Answer(bullpen::Service& service, Work work) {
    absl::Status status = CheckAwaited(args_.context);
    if (status.ok()) status = work(service, args_.request, args_.response);
    FreeContent(args_.request);
    args_.writes.Begin(args_.context);
    Finish(ToGrpcStatus(status));
  }

  void OnDone() override {
    const std::unique_ptr<WorkerCall> end = std::move(self_);
    args_.writes.End(args_.context);
    FreeContent(args_.response);
    const int64_t bytes = share_.bytes();
    args_.calls.PostToWorker([bytes] { TrimAfter(bytes); });
  }

  // gRPC keeps a reactor until OnDone, but does not own it.
  static WorkerCall& Keep(std::unique_ptr<WorkerCall> call) {
    WorkerCall& kept = *call;
    kept.self_ = std::move(call);
    return kept;
  }

 private:
  const Args args_;
  const CallBudget::Share share_;
  std::unique_ptr<WorkerCall> self_;
};

class InferenceService final : public v1::Inference::CallbackService {
 public:
  InferenceService(bullpen::Service& service, const GrpcConfig& config)
      : service_(service),
        api_keys_(config.api_keys),
        budget_(config.max_calls, config.max_request_bytes),
        writes_(config.write_seconds),
        calls_(service, writes_) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context,
      const v1::GenerateRequest* request) override {
    absl::Status status = Admit(*context);
    if (status.ok()) status = CheckSize(*request, service_.limits());
    return calls_.Start(*context, *request, Reserve(status, *request));
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    return AnswerOnWorker(*context, *request, *response, bullpen::Tokenize);
  }

  grpc::ServerUnaryReactor* Detokenize(
      grpc::CallbackServerContext* context,
      const v1::DetokenizeRequest* request,
      v1::DetokenizeResponse* response) override {
    return AnswerOnWorker(*context, *request, *response, bullpen::Detokenize);
  }

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest*,
                                     v1::GetModelResponse* response) override {
    const absl::Status status = Admit(*context);
    if (status.ok()) {
      FillModel(service_.facts(), *response);
    }
    return Answer(*context, status);
  }

  grpc::ServerUnaryReactor* GetExpertCache(
      grpc::CallbackServerContext* context, const v1::GetExpertCacheRequest*,
      v1::GetExpertCacheResponse* response) override {
    const absl::Status status = Admit(*context);
    if (status.ok()) {
      FillCache(service_.engine().cache_snapshot(), *response);
    }
    return Answer(*context, status);
  }

 private:
  // The key first: who has none learns nothing of the server's state.
  absl::Status Admit(const grpc::CallbackServerContext& context) const {
    const auto& metadata = context.client_metadata();
    const auto found = metadata.find("authorization");
    const std::string_view authorization =
        found == metadata.end()
            ? std::string_view()
            : std::string_view(found->second.data(), found->second.size());
    if (!IsAuthorized(authorization, api_keys_)) {
      return absl::UnauthenticatedError(
          "the metadata 'authorization: Bearer KEY' is missing or its key is "
          "not known");
    }
    return service_.CheckReady();
  }

  static grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext& context,
                                          const absl::Status& status) {
    grpc::ServerUnaryReactor* reactor = context.DefaultReactor();
    reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }

  // A place for a call that nothing else keeps out.
  absl::StatusOr<CallBudget::Share> Reserve(
      const absl::Status& admission, const google::protobuf::Message& request) {
    RETURN_IF_ERROR(admission);
    return budget_.Take(static_cast<int64_t>(request.SpaceUsedLong()));
  }

  // Context, request and response live until OnDone.
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* AnswerOnWorker(
      grpc::CallbackServerContext& context, const Request& request,
      Response& response, typename WorkerCall<Request, Response>::Work work) {
    absl::StatusOr<CallBudget::Share> share = Reserve(Admit(context), request);
    if (!share.ok()) return Answer(context, share.status());
    using Call = WorkerCall<Request, Response>;
    const typename Call::Args args = {context, request, response, calls_,
                                      writes_};
    Call& call = Call::Keep(std::make_unique<Call>(args, *std::move(share)));
    calls_.PostToWorker([this, &call, work] { call.Answer(service_, work); });
    return &call;
  }

  bullpen::Service& service_;
  const std::vector<std::string> api_keys_;
  CallBudget budget_;
  PendingWrites writes_;
  GenerateCalls calls_;
};

// gRPC's own words go to our log, in its format; what matters of them comes
// back as a status as well, so they are for debugging.
void LogForGrpc(gpr_log_func_args* args) {
  spdlog::debug("gRPC: {} ({}:{})", args->message, args->file, args->line);
}

std::string Address(const std::string& host, int port) {
  const bool ipv6 = absl::StrContains(host, ":");
  return absl::StrCat(ipv6 ? "[" : "", host, ipv6 ? "]" : "", ":", port);
}

}  // namespace

struct GrpcServer::State {
  State(Service& service, const GrpcConfig& config)
      : inference(service, config) {}

  InferenceService inference;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
};

GrpcServer::GrpcServer(std::unique_ptr<State> state)
    : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Listen(
    Service& service, const GrpcConfig& config) {
  gpr_set_log_function(LogForGrpc);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  auto state = std::make_unique<State>(service, config);
  const std::string address = Address(config.host, config.port);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(),
                           &state->port);
  builder.RegisterService(&state->inference);
  builder.SetMaxReceiveMessageSize(static_cast<int>(std::min<int64_t>(
      service.limits().max_body_bytes, std::numeric_limits<int>::max())));
  // Otherwise a second server on the same port would share it silently.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      config.min_ping_ms);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             kMaxStreamsPerConnection);
  state->server = builder.BuildAndStart();
  if (state->server == nullptr || state->port == 0) {
    return absl::UnavailableError(absl::StrCat(
        "cannot listen on ", address,
        " for gRPC: the port is in use, or the address is not this machine's"));
  }
  std::unique_ptr<GrpcServer> server(new GrpcServer(std::move(state)));
  server->SetServing(false);
  return server;
}

GrpcServer::~GrpcServer() { Shutdown(Clock::now()); }

uint16_t GrpcServer::port() const {
  return static_cast<uint16_t>(state_->port);
}

void GrpcServer::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health =
      state_->server->GetHealthCheckService();
  health->SetServingStatus("", serving);
  health->SetServingStatus(v1::Inference::service_full_name(), serving);
}

void GrpcServer::Shutdown(Clock::time_point until) {
  const auto left = std::max(until - Clock::now(), Clock::duration::zero());
  state_->server->Shutdown(
      std::chrono::system_clock::now() +
      std::chrono::duration_cast<std::chrono::system_clock::duration>(left));
}

}  // namespace bullpen
