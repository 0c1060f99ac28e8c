#include "clients/cpp/client.h"

#include <utility>

#include "grpcpp/grpcpp.h"

namespace bullpen::client {
namespace {

// Both sides number the canonical codes alike.
absl::Status ToStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

}  // namespace

Client::Client(const std::string& target, ClientOptions options)
    : options_(std::move(options)),
      stub_(v1::Inference::NewStub(
          grpc::CreateChannel(target, grpc::InsecureChannelCredentials()))) {}

void Client::Prepare(grpc::ClientContext& context) const {
  context.set_deadline(std::chrono::system_clock::now() + options_.deadline);
  if (!options_.api_key.empty()) {
    context.AddMetadata("authorization", "Bearer " + options_.api_key);
  }
}

absl::StatusOr<Completion> Client::Generate(const v1::GenerateRequest& request,
                                            const OnMessage& on_message) {
  grpc::ClientContext context;
  Prepare(context);
  const auto reader = stub_->Generate(&context, request);
  Completion completion;
  v1::GenerateResponse message;
  while (reader->Read(&message)) {
    completion.request_id = message.request_id();
    completion.text += message.text();
    completion.tokens.insert(completion.tokens.end(), message.tokens().begin(),
                             message.tokens().end());
    if (message.has_finish()) completion.finish = message.finish();
    if (on_message && !on_message(message)) context.TryCancel();
  }
  const absl::Status status = ToStatus(reader->Finish());
  if (!status.ok()) return status;
  return completion;
}

absl::StatusOr<std::vector<int32_t>> Client::Tokenize(const std::string& text,
                                                      bool add_special_tokens) {
  grpc::ClientContext context;
  Prepare(context);
  v1::TokenizeRequest request;
  request.set_text(text);
  request.set_add_special_tokens(add_special_tokens);
  v1::TokenizeResponse response;
  const absl::Status status =
      ToStatus(stub_->Tokenize(&context, request, &response));
  if (!status.ok()) return status;
  return std::vector<int32_t>(response.ids().begin(), response.ids().end());
}

absl::StatusOr<std::string> Client::Detokenize(const std::vector<int32_t>& ids,
                                               bool skip_special_tokens) {
  grpc::ClientContext context;
  Prepare(context);
  v1::DetokenizeRequest request;
  request.mutable_ids()->Add(ids.begin(), ids.end());
  request.set_skip_special_tokens(skip_special_tokens);
  v1::DetokenizeResponse response;
  const absl::Status status =
      ToStatus(stub_->Detokenize(&context, request, &response));
  if (!status.ok()) return status;
  return response.text();
}

absl::StatusOr<v1::GetModelResponse> Client::GetModel() {
  grpc::ClientContext context;
  Prepare(context);
  v1::GetModelResponse response;
  const absl::Status status =
      ToStatus(stub_->GetModel(&context, v1::GetModelRequest(), &response));
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::GetExpertCacheResponse> Client::GetExpertCache() {
  grpc::ClientContext context;
  Prepare(context);
  v1::GetExpertCacheResponse response;
  const absl::Status status = ToStatus(
      stub_->GetExpertCache(&context, v1::GetExpertCacheRequest(), &response));
  if (!status.ok()) return status;
  return response;
}

}  // namespace bullpen::client
