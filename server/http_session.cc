#include "server/http_session.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/strings.h"
#include "base/trim_memory.h"
#include "boost/asio/co_spawn.hpp"
#include "boost/asio/redirect_error.hpp"
#include "boost/asio/use_awaitable.hpp"
#include "boost/asio/write.hpp"
#include "boost/beast/http/parser.hpp"
#include "boost/beast/http/read.hpp"
#include "boost/beast/http/string_body.hpp"
#include "server/http_log.h"
#include "server/http_message.h"
#include "server/http_routes.h"
#include "server/http_stream.h"
#include "server/openai_generation.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using Parser = http::request_parser<http::string_body>;

constexpr int kClientGone = 499;
// Longer answers are put together where nobody waits for the thread: with log
// probabilities a token takes 300 bytes and more.
constexpr int64_t kLongAnswerTokens = 4096;
// A connection over the limit has this long to ask, once.
constexpr double kCrowdedSeconds = 2;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string Header(const Parser& parser, http::field name) {
  return std::string(parser.get()[name]);
}

std::string Header(const Parser& parser, const char* name) {
  return std::string(parser.get()[name]);
}

// What Beast takes though it must not be (RFC 9112, 3.2 and 6.3): above all a
// body in a coding that it does not know, for it would read that as the next
// request. Empty if there is nothing.
std::string Malformed(const Parser& parser) {
  const auto& header = parser.get();
  const size_t codings = header.count(http::field::transfer_encoding);
  if (codings > 1 ||
      (codings == 1 &&
       !beast::iequals(header[http::field::transfer_encoding], "chunked"))) {
    return "Transfer-Encoding must be chunked, once, or absent";
  }
  if (header.version() >= 11 && header.count(http::field::host) != 1) {
    return "there must be one Host";
  }
  return "";
}

bool IsProbe(Endpoint endpoint) {
  return endpoint == Endpoint::kHealth || endpoint == Endpoint::kReady ||
         endpoint == Endpoint::kMetrics;
}

// What is said on one connection. Runs on its strand.
class Session {
 public:
  Session(HttpContext& context, asio::ip::tcp::socket socket)
      : context_(context),
        stream_(std::move(socket), context.config, context.connections) {}

  asio::awaitable<void> Serve();
  // When it is done nothing refers to this object any more.
  asio::awaitable<void> End();

 private:
  enum class Read { kRequest, kRefused, kGone };

  bool Closing() const {
    return context_.connections.phase() != HttpConnections::Phase::kServing;
  }
  asio::awaitable<Read> ReadRequest();
  asio::awaitable<void> ReadBody(Parser& parser, error_code& error);
  asio::awaitable<Read> RefuseRead(error_code error);
  asio::awaitable<Read> RefuseUnread(HttpResponse response);
  HttpResponse CrowdedOut() const;
  bool HoldBody(size_t bytes);
  void DropBody();
  asio::awaitable<bool> Respond(const HttpResponse& response);
  asio::awaitable<void> OnWorker(std::function<void()> job);
  asio::awaitable<bool> Handle();
  asio::awaitable<bool> Generate(bool chat);
  asio::awaitable<bool> Refuse(const absl::Status& status);
  asio::awaitable<bool> SendWhole(Generation& generation);
  asio::awaitable<bool> SendStream(Generation& generation);
  void NoteFirstToken(const Generation& generation);
  void Log(const Generation* generation, const absl::Status& status) const;

  HttpContext& context_;
  HttpStream stream_;
  bool crowded_ = false;   // over the limit of connections
  int64_t body_held_ = 0;  // of connections.AddBodyBytes

  // Of the request under way.
  HttpRequest request_;
  std::optional<Endpoint> endpoint_;
  int version_ = 11;
  bool keep_alive_ = true;
  Clock::time_point begun_;
  Clock::time_point first_token_;  // epoch = none yet
  int sent_status_ = 0;
};

asio::awaitable<void> Session::Serve() {
  context_.service.metrics().http_connections.Increment();
  crowded_ = context_.connections.count() > context_.config.max_connections;
  while (!Closing()) {
    const Read read = co_await ReadRequest();
    if (read == Read::kGone) co_return;
    if (read == Read::kRefused) {
      co_await stream_.Linger();
      co_return;
    }
    const bool go_on = co_await Handle();
    HoldBody(0);
    if (!go_on) co_return;
  }
}

asio::awaitable<void> Session::End() {
  HoldBody(0);
  context_.service.metrics().http_connections.Decrement();
  co_await stream_.End();
}

asio::awaitable<Session::Read> Session::ReadRequest() {
  const bool more = co_await stream_.AwaitBytes(
      crowded_ ? kCrowdedSeconds : context_.config.idle_seconds);
  if (!more) co_return Read::kGone;
  begun_ = Clock::now();
  first_token_ = {};
  request_ = {.request_id = RequestId("")};
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(context_.config.max_header_bytes));
  parser.body_limit(
      static_cast<uint64_t>(context_.service.limits().max_body_bytes));
  error_code error;
  version_ = 11;
  keep_alive_ = true;
  sent_status_ = kClientGone;  // until something else is sent
  stream_.socket().expires_after(
      ToDuration(crowded_ ? kCrowdedSeconds : context_.config.read_seconds));
  co_await http::async_read_header(
      stream_.socket(), stream_.buffer(), parser,
      asio::redirect_error(asio::use_awaitable, error));
  if (error) co_return co_await RefuseRead(error);
  version_ = parser.get().version() == 10 ? 10 : 11;
  keep_alive_ = parser.get().keep_alive() && !crowded_;
  request_ = {.method = std::string(parser.get().method_string()),
              .path = PathOf(std::string_view(parser.get().target().data(),
                                              parser.get().target().size())),
              .content_type = Header(parser, http::field::content_type),
              .origin = Header(parser, http::field::origin),
              .authorization = Header(parser, http::field::authorization),
              .api_key = Header(parser, "X-Api-Key"),
              .request_id = RequestId(Header(parser, "X-Request-Id"))};
  if (std::string why = Malformed(parser); !why.empty()) {
    co_return co_await RefuseUnread(ErrorResponse(RequestError(400, why)));
  }
  RouteResult route = Route(request_, context_.config);
  if (crowded_ && !(route.endpoint.has_value() && IsProbe(*route.endpoint))) {
    co_return co_await RefuseUnread(CrowdedOut());
  }
  if (!route.endpoint.has_value()) {
    // What the body says does not matter any more.
    if (!parser.is_done()) keep_alive_ = false;
    const bool written = co_await Respond(route.refusal);
    if (!written) co_return Read::kGone;
    co_return keep_alive_ ? Read::kRequest : Read::kRefused;
  }
  endpoint_ = route.endpoint;
  co_await ReadBody(parser, error);
  if (error) co_return co_await RefuseRead(error);
  request_.body = std::move(parser.get().body());
  co_return Read::kRequest;
}

asio::awaitable<void> Session::ReadBody(Parser& parser, error_code& error) {
  if (parser.is_done()) co_return;
  stream_.socket().expires_after(ToDuration(context_.config.read_seconds));
  if (version_ == 11 &&
      beast::iequals(parser.get()[http::field::expect], "100-continue")) {
    static constexpr std::string_view kContinue =
        "HTTP/1.1 100 Continue\r\n\r\n";
    co_await asio::async_write(
        stream_.socket(), asio::buffer(kContinue.data(), kContinue.size()),
        asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return;
  }
  parser.eager(true);
  while (!error && !parser.is_done()) {
    co_await http::async_read_some(
        stream_.socket(), stream_.buffer(), parser,
        asio::redirect_error(asio::use_awaitable, error));
    if (!HoldBody(parser.get().body().size())) {
      error = make_error_code(boost::system::errc::no_buffer_space);
    }
  }
}

// Books the body under way; false if all together have too much.
bool Session::HoldBody(size_t bytes) {
  const int64_t held = static_cast<int64_t>(bytes);
  const int64_t change = held - std::exchange(body_held_, held);
  const int64_t limit = std::max(context_.config.max_bodies_bytes,
                                 context_.service.limits().max_body_bytes);
  return context_.connections.AddBodyBytes(change) <= limit || change <= 0;
}

// On a worker, once the body has been parsed, which took many times its size.
void Session::DropBody() {
  const int64_t bytes = std::ssize(request_.body);
  request_.body = std::string();
  TrimAfter(bytes);
}

HttpResponse Session::CrowdedOut() const {
  return ErrorResponse(ToApiError(absl::UnavailableError(
      absl::StrCat("the server has its ", context_.config.max_connections,
                   " connections; try again"))));
}

asio::awaitable<Session::Read> Session::RefuseUnread(HttpResponse response) {
  keep_alive_ = false;
  HoldBody(0);
  const bool written = co_await Respond(response);
  co_return written ? Read::kRefused : Read::kGone;
}

// Answers a request that could not be read, where there is still somebody.
asio::awaitable<Session::Read> Session::RefuseRead(error_code error) {
  HttpResponse response;
  if (error == boost::system::errc::no_buffer_space) {
    response = ErrorResponse(ToApiError(absl::UnavailableError(
        "the server is reading as many bodies of requests as it has memory "
        "for; try again")));
  } else if (error == http::error::body_limit) {
    response = ErrorResponse(RequestError(
        413, absl::StrCat("the body is over the limit of ",
                          context_.service.limits().max_body_bytes, " bytes")));
  } else if (error == http::error::header_limit ||
             error == http::error::buffer_overflow) {
    response = ErrorResponse(RequestError(
        431, absl::StrCat("the header is over the limit of ",
                          context_.config.max_header_bytes, " bytes")));
  } else if (error.category() ==
                 http::make_error_code(http::error::bad_method).category() &&
             error != http::error::end_of_stream &&
             error != http::error::partial_message) {
    response = ErrorResponse(
        RequestError(400, "the request is not valid HTTP: " + error.message()));
  } else {
    // Hung up, or too slow: the stream is closed already.
    co_return Read::kGone;
  }
  co_return co_await RefuseUnread(std::move(response));
}

asio::awaitable<bool> Session::Respond(const HttpResponse& response) {
  if (Closing()) keep_alive_ = false;
  sent_status_ = response.status;
  context_.service.metrics()
      .http_responses.Add({{"code", std::to_string(response.status)}})
      .Increment();
  std::string bytes = ResponseHead(
      response, {.version = version_,
                 .keep_alive = keep_alive_,
                 .body_bytes = static_cast<int64_t>(response.body.size()),
                 .request_id = request_.request_id});
  if (request_.method != "HEAD") bytes += response.body;
  co_return co_await stream_.Write(std::move(bytes));
}

asio::awaitable<void> RunJob(std::function<void()> job) {
  job();
  co_return;
}

asio::awaitable<void> Session::OnWorker(std::function<void()> job) {
  co_await asio::co_spawn(context_.workers.get_executor(),
                          RunJob(std::move(job)), asio::use_awaitable);
}

// Whether the connection may go on.
asio::awaitable<bool> Session::Handle() {
  // A refusal has been written already.
  if (!endpoint_.has_value()) co_return keep_alive_;
  const Endpoint endpoint = *std::exchange(endpoint_, std::nullopt);
  if (endpoint == Endpoint::kCompletions ||
      endpoint == Endpoint::kChatCompletions) {
    const bool chat = endpoint == Endpoint::kChatCompletions;
    co_return co_await Generate(chat);
  }
  const AnswerContext answer{context_.service, context_.config,
                             context_.started};
  HttpResponse response;
  if (IsSlow(endpoint)) {
    co_await OnWorker([&] {
      response = Answer(endpoint, request_, answer);
      DropBody();
    });
  } else {
    response = Answer(endpoint, request_, answer);
  }
  const bool written = co_await Respond(response);
  co_return (written && keep_alive_);
}

asio::awaitable<bool> Session::Generate(bool chat) {
  // From here on it is seen when the client leaves, also while others' bodies
  // are parsed before this one.
  stream_.StartWatching();
  absl::StatusOr<std::unique_ptr<Generation>> generation =
      absl::CancelledError("the client has gone");
  {
    const GenerationArgs args{.service = context_.service,
                              .chat = chat,
                              .body = request_.body,
                              .request_id = request_.request_id,
                              .wake = HttpStream::Waker(stream_)};
    co_await OnWorker([&] {
      if (!stream_.gone()) generation = Generation::Start(args);
      DropBody();
    });
  }
  HoldBody(0);
  bool go_on = false;
  if (!generation.ok()) {
    go_on = co_await Refuse(generation.status());
    Log(nullptr, generation.status());
  } else {
    if ((*generation)->streamed()) {
      go_on = co_await SendStream(**generation);
    } else {
      go_on = co_await SendWhole(**generation);
    }
    Log(generation->get(), (*generation)->status());
    generation->reset();  // cancels what still runs
  }
  co_await stream_.StopWatching();
  co_return go_on && !stream_.gone();
}

asio::awaitable<bool> Session::Refuse(const absl::Status& status) {
  if (absl::IsInvalidArgument(status)) {
    context_.service.metrics().requests_rejected_invalid.Increment();
  }
  if (stream_.gone()) co_return false;
  const bool written = co_await Respond(ErrorResponse(ToApiError(status)));
  co_return (written && keep_alive_);
}

asio::awaitable<bool> Session::SendWhole(Generation& generation) {
  std::string unused;
  const HttpConnections::Generating generating(context_.connections);
  while (true) {
    generation.Take(unused);
    NoteFirstToken(generation);
    if (generation.ended() || stream_.gone()) break;
    co_await stream_.Pause(Clock::now() + context_.connections.TakeInterval());
    co_await stream_.Wait(ToDuration(context_.config.ping_seconds));
  }
  if (stream_.gone()) co_return false;
  HttpResponse response;
  if (generation.status().ok()) {
    const Usage usage = generation.usage();
    if (usage.prompt_tokens + usage.completion_tokens < kLongAnswerTokens) {
      response.body = generation.WholeBody();
    } else {
      co_await OnWorker([&] { response.body = generation.WholeBody(); });
    }
  } else {
    response = ErrorResponse(ToApiError(generation.status()));
  }
  const bool written = co_await Respond(response);
  co_return (written && keep_alive_);
}

asio::awaitable<bool> Session::SendStream(Generation& generation) {
  if (Closing()) keep_alive_ = false;
  HttpResponse response{.content_type = "text/event-stream; charset=utf-8"};
  response.headers = {{"Cache-Control", "no-cache"},
                      {"X-Accel-Buffering", "no"}};
  sent_status_ = response.status;
  context_.service.metrics().http_responses.Add({{"code", "200"}}).Increment();
  const bool chunked = version_ != 10;
  if (!chunked) keep_alive_ = false;
  std::string bytes =
      ResponseHead(response, {.version = version_,
                              .keep_alive = keep_alive_,
                              .body_bytes = -1,
                              .request_id = request_.request_id});
  std::string events;
  bool woken = true;
  const HttpConnections::Generating generating(context_.connections);
  while (true) {
    const Clock::time_point taken = Clock::now();
    generation.Take(events);
    NoteFirstToken(generation);
    if (!woken && events.empty()) events = ": still working\n\n";
    if (chunked) {
      AppendChunk(bytes, events);
      if (generation.ended()) bytes += kLastChunk;
    } else {
      bytes += events;
    }
    if (!bytes.empty()) {
      const bool written = co_await stream_.Write(std::move(bytes));
      if (!written) co_return false;
    }
    bytes.clear();
    events.clear();
    if (generation.ended()) break;
    co_await stream_.Pause(taken + context_.connections.TakeInterval());
    const Clock::time_point ping =
        Clock::now() + ToDuration(context_.config.ping_seconds);
    co_await stream_.Wait(ToDuration(context_.config.ping_seconds));
    woken = Clock::now() < ping;
    if (stream_.gone()) co_return false;
  }
  // After an error event the connection closes.
  co_return (keep_alive_ && generation.status().ok());
}

void Session::NoteFirstToken(const Generation& generation) {
  if (first_token_ == Clock::time_point{} &&
      generation.usage().completion_tokens > 0) {
    first_token_ = Clock::now();
  }
}

void Session::Log(const Generation* generation,
                  const absl::Status& status) const {
  const bool fault = !status.ok() && ToApiError(status).http_status >= 500;
  const std::string error = fault ? status.ToString() : "";
  const bool token_came = first_token_ != Clock::time_point{};
  LogHttpRequest(
      {.request_id = request_.request_id,
       .endpoint = request_.path,
       .status = sent_status_,
       .first_token_seconds =
           token_came
               ? std::chrono::duration<double>(first_token_ - begun_).count()
               : 0,
       .total_seconds = SecondsSince(begun_),
       .error = error},
      generation);
}

}  // namespace

asio::awaitable<void> ServeConnection(HttpContext& context,
                                      asio::ip::tcp::socket socket) {
  Session session(context, std::move(socket));
  try {
    co_await session.Serve();
  } catch (const std::exception& error) {
    // Of the libraries, as when memory runs out: this connection only.
    spdlog::error("HTTP connection failed: {}", error.what());
  }
  co_await session.End();
}

}  // namespace bullpen
