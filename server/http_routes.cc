#include "server/http_routes.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "base/status.h"
#include "base/strings.h"
#include "nlohmann/json.hpp"
#include "prometheus/text_serializer.h"
#include "server/api_keys.h"
#include "server/errors.h"
#include "server/openai_json.h"
#include "server/openai_request.h"

namespace bullpen {
namespace {

using nlohmann::json;

struct RouteEntry {
  std::string_view path;
  bool post;
  Endpoint endpoint;
};

constexpr std::array kRoutes = {
    RouteEntry{"/v1/completions", true, Endpoint::kCompletions},
    RouteEntry{"/v1/chat/completions", true, Endpoint::kChatCompletions},
    RouteEntry{"/v1/models", false, Endpoint::kModels},
    RouteEntry{"/tokenize", true, Endpoint::kTokenize},
    RouteEntry{"/detokenize", true, Endpoint::kDetokenize},
    RouteEntry{"/health", false, Endpoint::kHealth},
    RouteEntry{"/ready", false, Endpoint::kReady},
    RouteEntry{"/metrics", false, Endpoint::kMetrics},
    RouteEntry{"/v1/experts", false, Endpoint::kExperts},
    RouteEntry{"/version", false, Endpoint::kVersion},
};

constexpr std::string_view kModelPrefix = "/v1/models/";

std::optional<RouteEntry> Find(std::string_view path) {
  if (path.starts_with(kModelPrefix) && path.size() > kModelPrefix.size()) {
    return RouteEntry{path, false, Endpoint::kModel};
  }
  const auto found =
      std::find_if(kRoutes.begin(), kRoutes.end(),
                   [&](const RouteEntry& entry) { return entry.path == path; });
  if (found == kRoutes.end()) return std::nullopt;
  return *found;
}

bool NeedsKey(Endpoint endpoint, const HttpConfig& config) {
  if (endpoint == Endpoint::kMetrics) return !config.open_metrics;
  return endpoint != Endpoint::kHealth && endpoint != Endpoint::kReady;
}

bool HasKey(const HttpRequest& request, const HttpConfig& config) {
  return IsAuthorized(request.authorization, config.api_keys) ||
         (!request.api_key.empty() &&
          IsAuthorized("Bearer " + request.api_key, config.api_keys));
}

// Only what says that it is JSON is read as JSON, and what says nothing and
// comes from no web page: pages of others can make a browser send every other
// type, and none, without asking.
bool IsJsonType(const HttpRequest& request) {
  std::string_view type = request.content_type;
  type = type.substr(0, type.find(';'));
  while (type.ends_with(' ')) type.remove_suffix(1);
  return (type.empty() && request.origin.empty()) ||
         absl::EqualsIgnoreCase(Absl(type), "application/json") ||
         absl::EndsWithIgnoreCase(Absl(type), "+json");
}

HttpResponse Refuse(int status, std::string message) {
  return ErrorResponse(RequestError(status, std::move(message)));
}

HttpResponse JsonResponse(const json& body) {
  return {.body = body.dump(-1, ' ', false, json::error_handler_t::replace)};
}

json ModelObject(const AnswerContext& context) {
  const ModelFacts& facts = context.service.facts();
  return {{"id", facts.id},
          {"object", "model"},
          {"created", context.started},
          {"owned_by", "bullpen"},
          {"max_model_len", facts.context}};
}

absl::Status CheckModelField(BodyFields& fields, const ModelFacts& facts) {
  const std::string asked = fields.String("model").value_or("");
  if (asked.empty() || asked == facts.id) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat("The model ", ShortJson(json(asked)), " does not exist"));
}

// llama-server says content and adds no special tokens unless told to; vLLM
// says prompt and adds them.
absl::StatusOr<json> Tokenize(const HttpRequest& request, Service& service) {
  ASSIGN_OR_RETURN(const nlohmann::ordered_json body,
                   ParseJsonObject(request.body, service.limits()));
  BodyFields fields(body);
  const std::optional<std::string> content = fields.String("content");
  const std::optional<std::string> prompt = fields.String("prompt");
  const std::optional<bool> llama_special = fields.Bool("add_special");
  const std::optional<bool> vllm_special = fields.Bool("add_special_tokens");
  fields.Unsupported("parse_special", {true});
  fields.Unsupported("with_pieces", {false});
  fields.Unsupported("return_token_strs", {false});
  if (content.has_value() == prompt.has_value()) {
    fields.Fail("content", "or prompt must be given, and only one of them");
  }
  const absl::Status model = CheckModelField(fields, service.facts());
  RETURN_IF_ERROR(fields.Finish());
  RETURN_IF_ERROR(model);
  const bool add_special =
      llama_special.value_or(vllm_special.value_or(prompt.has_value()));
  const std::vector<int32_t> ids = service.tokenizer().Encode(
      content.has_value() ? *content : *prompt, add_special);
  return json{{"tokens", ids},
              {"count", ids.size()},
              {"max_model_len", service.facts().context}};
}

absl::StatusOr<json> Detokenize(const HttpRequest& request, Service& service) {
  ASSIGN_OR_RETURN(const nlohmann::ordered_json body,
                   ParseJsonObject(request.body, service.limits()));
  BodyFields fields(body);
  const nlohmann::ordered_json* tokens = fields.Any("tokens");
  const absl::Status model = CheckModelField(fields, service.facts());
  if (tokens == nullptr) fields.Fail("tokens", "is missing");
  RETURN_IF_ERROR(fields.Finish());
  RETURN_IF_ERROR(model);
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                   ParseTokenIds(*tokens, "tokens"));
  const int32_t vocab = service.facts().vocab;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab) continue;
    return FieldError(
        "tokens", absl::StrCat("tokens[", i, "] is token id ", ids[i],
                               ", which is not in the vocabulary of ", vocab,
                               " (0 to ", vocab - 1, ")"));
  }
  const std::string text =
      service.tokenizer().Decode(ids, /*skip_special=*/false);
  return json{{"content", text}, {"prompt", text}};
}

absl::StatusOr<json> Model(const HttpRequest& request,
                           const AnswerContext& context) {
  const std::string asked = request.path.substr(kModelPrefix.size());
  if (asked == context.service.facts().id) return ModelObject(context);
  return absl::NotFoundError(
      absl::StrCat("The model ", ShortJson(json(asked)), " does not exist"));
}

json Lookups(const LookupCounts& counts) {
  return {{"resident", counts.resident},
          {"prefetched", counts.prefetched},
          {"prefetched_late", counts.prefetched_late},
          {"missed", counts.missed}};
}

json Experts(const CacheSnapshot& snapshot) {
  json layers = json::array();
  for (size_t i = 0; i < snapshot.layers.size(); ++i) {
    const CacheSnapshot::Layer& layer = snapshot.layers[i];
    layers.push_back({{"layer", i},
                      {"experts", layer.experts},
                      {"slots", layer.slots},
                      {"slot_bytes", layer.slot_bytes},
                      {"resident", layer.resident.size()},
                      {"loading", layer.loading.size()},
                      {"lookups", layer.lookups},
                      {"hits", layer.hits},
                      {"resident_experts", layer.resident},
                      {"scores", layer.scores},
                      {"loading_experts", layer.loading}});
  }
  return {{"arena_bytes", snapshot.arena_bytes},
          {"loads", snapshot.loads},
          {"load_failures", snapshot.load_failures},
          {"bytes_loaded", snapshot.bytes_loaded},
          {"lookups",
           {{"decode", Lookups(snapshot.decode)},
            {"prefill", Lookups(snapshot.prefill)}}},
          {"transferred_bytes",
           {{"demand", snapshot.transferred.demand},
            {"prefetch_used", snapshot.transferred.prefetch_used},
            {"prefetch_wasted", snapshot.transferred.prefetch_wasted}}},
          {"stall_seconds", snapshot.stall_seconds},
          {"recent",
           {{"lookups", snapshot.recent.lookups},
            {"live", snapshot.recent.live},
            {"lru", snapshot.recent.lru},
            {"segment", snapshot.recent.segment},
            {"belady", snapshot.recent.belady}}},
          {"layers", std::move(layers)}};
}

HttpResponse Health(const AnswerContext& context) {
  Service& service = context.service;
  if (service.state() == Service::State::kReady) {
    const double silent = service.engine().seconds_since_heartbeat();
    if (silent > context.config.heartbeat_seconds) {
      return ErrorResponse(ToApiError(absl::UnavailableError(absl::StrCat(
          "the engine has shown no life for ", silent, " s, more than ",
          context.config.heartbeat_seconds, " s"))));
    }
  }
  return JsonResponse({{"status", "ok"}});
}

HttpResponse MetricsText(Metrics& metrics) {
  const prometheus::TextSerializer serializer;
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = serializer.Serialize(metrics.registry().Collect())};
}

// Endpoints that need the model.
absl::StatusOr<json> ModelAnswer(Endpoint endpoint, const HttpRequest& request,
                                 const AnswerContext& context) {
  RETURN_IF_ERROR(context.service.CheckReady());
  switch (endpoint) {
    case Endpoint::kReady:
      return json{{"status", "ready"}};
    case Endpoint::kModels:
      return json{{"object", "list"},
                  {"data", json::array({ModelObject(context)})}};
    case Endpoint::kModel:
      return Model(request, context);
    case Endpoint::kTokenize:
      return Tokenize(request, context.service);
    case Endpoint::kDetokenize:
      return Detokenize(request, context.service);
    case Endpoint::kExperts:
      return Experts(context.service.engine().cache_snapshot());
    default:
      return absl::InternalError("the endpoint has no answer");
  }
}

}  // namespace

RouteResult Route(const HttpRequest& request, const HttpConfig& config) {
  const std::optional<RouteEntry> entry = Find(request.path);
  if (!entry.has_value()) {
    // Only those who may know are told what there is.
    if (!HasKey(request, config)) {
      return {.refusal = Refuse(401, "a valid API key is needed")};
    }
    return {.refusal = Refuse(
                404, absl::StrCat("there is no ", ShortJson(request.path)))};
  }
  const std::string_view allow =
      entry->post ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
  const bool allowed =
      entry->post ? request.method == "POST"
                  : request.method == "GET" || request.method == "HEAD";
  if (!allowed) {
    RouteResult result;
    if (request.method == "OPTIONS") {
      result.refusal.status = 204;
    } else {
      result.refusal = Refuse(
          405, absl::StrCat(ShortJson(request.method), " is not allowed on ",
                            ShortJson(request.path), "; use ", Absl(allow)));
    }
    result.refusal.headers.emplace_back("Allow", allow);
    return result;
  }
  if (NeedsKey(entry->endpoint, config) && !HasKey(request, config)) {
    return {.refusal = Refuse(401, "a valid API key is needed")};
  }
  if (entry->post && !IsJsonType(request)) {
    return {.refusal = Refuse(
                415, absl::StrCat("the Content-Type must be application/json, "
                                  "got ",
                                  ShortJson(request.content_type)))};
  }
  return {.endpoint = entry->endpoint};
}

bool IsSlow(Endpoint endpoint) {
  return endpoint == Endpoint::kTokenize || endpoint == Endpoint::kDetokenize;
}

HttpResponse Answer(Endpoint endpoint, const HttpRequest& request,
                    const AnswerContext& context) {
  switch (endpoint) {
    case Endpoint::kHealth:
      return Health(context);
    case Endpoint::kMetrics:
      return MetricsText(context.service.metrics());
    case Endpoint::kVersion:
      return JsonResponse({{"version", context.config.version}});
    default: {
      const absl::StatusOr<json> body = ModelAnswer(endpoint, request, context);
      if (!body.ok()) return ErrorResponse(ToApiError(body.status()));
      return JsonResponse(*body);
    }
  }
}

}  // namespace bullpen
