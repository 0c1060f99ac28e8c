#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bullpen/v1/inference.pb.h"
#include "engine/experts/cache.h"
#include "engine/request.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "server/service.h"
#include "server/translate.h"

namespace bullpen {

// absl's codes are gRPC's; the message goes as it is.
grpc::Status ToGrpcStatus(const absl::Status& status);

// InvalidArgument for a chat of too many messages, each of which takes two
// hundred times a small one's bytes once it is JSON. Cheap: for before anything
// is done with a request.
absl::Status CheckSize(const v1::GenerateRequest& request,
                       const RequestLimits& limits);

// Cancelled or DeadlineExceeded once nobody waits for the answer any more.
absl::Status CheckAwaited(const grpc::CallbackServerContext& context);

// The wire's request in neutral form. Renders a chat, which may take up to the
// template's time limit. NotFound for a model that is not the served one.
absl::StatusOr<GenerateParams> ToParams(const v1::GenerateRequest& request,
                                        Service& service);

// The request's own id, or a new one. InvalidArgument when it is too long or
// has unprintable bytes.
absl::StatusOr<std::string> RequestId(const v1::GenerateRequest& request);

void FillToken(const TokenEvent& event, const Tokenizer& tokenizer,
               v1::Token& token);
void FillModel(const ModelFacts& facts, v1::GetModelResponse& response);
void FillCache(const CacheSnapshot& snapshot,
               v1::GetExpertCacheResponse& response);

}  // namespace bullpen
