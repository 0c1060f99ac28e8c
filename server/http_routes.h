#pragma once

#include <cstdint>
#include <optional>

#include "server/http_message.h"
#include "server/http_server.h"
#include "server/service.h"

namespace bullpen {

enum class Endpoint {
  kCompletions,
  kChatCompletions,
  kModels,
  kModel,
  kTokenize,
  kDetokenize,
  kHealth,
  kReady,
  kMetrics,
  kExperts,
  kVersion,
};

// Where a request goes, or the answer that refuses it.
struct RouteResult {
  std::optional<Endpoint> endpoint = {};
  HttpResponse refusal = {};  // iff there is no endpoint
};

// Looks at everything but the body: path, method, key, content type.
RouteResult Route(const HttpRequest& request, const HttpConfig& config);

// Whether answering may take longer than an I/O thread should be held up.
bool IsSlow(Endpoint endpoint);

struct AnswerContext {
  Service& service;
  const HttpConfig& config;
  int64_t started = 0;  // Unix time of the server's start
};

// The answer of every endpoint but the two that generate.
HttpResponse Answer(Endpoint endpoint, const HttpRequest& request,
                    const AnswerContext& context);

}  // namespace bullpen
