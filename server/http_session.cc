#include "server/http_session.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/strings.h"
#include "boost/asio/co_spawn.hpp"
#include "boost/asio/detached.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/redirect_error.hpp"
#include "boost/asio/steady_timer.hpp"
#include "boost/asio/use_awaitable.hpp"
#include "boost/asio/write.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/core/tcp_stream.hpp"
#include "boost/beast/http/parser.hpp"
#include "boost/beast/http/read.hpp"
#include "boost/beast/http/string_body.hpp"
#include "server/http_log.h"
#include "server/http_message.h"
#include "server/http_routes.h"
#include "server/openai_generation.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using Parser = http::request_parser<http::string_body>;

// What a client may send ahead while its present request is answered.
constexpr size_t kAheadBytes = 64 << 10;
constexpr size_t kReadBytes = 4096;
constexpr int kClientGone = 499;
// After a refusal in mid-request, what is still coming is read and dropped for
// a moment: closing at once would reset the connection under the answer.
constexpr size_t kLingerBytes = 16 << 20;
constexpr std::chrono::seconds kLinger{2};

std::chrono::steady_clock::duration Seconds(double seconds) {
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(seconds));
}

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string Header(const Parser& parser, http::field name) {
  return std::string(parser.get()[name]);
}

std::string Header(const Parser& parser, const char* name) {
  return std::string(parser.get()[name]);
}

// One connection. Everything runs on its strand, but Waker.
class Session {
 public:
  Session(HttpContext& context, asio::ip::tcp::socket socket)
      : context_(context),
        stream_(std::move(socket)),
        timer_(stream_.get_executor()),
        buffer_(kAheadBytes + kReadBytes + context.config.max_header_bytes) {}

  asio::awaitable<void> Serve();
  // Closes the socket and waits until nothing refers to this object.
  asio::awaitable<void> End();

 private:
  // Wakes the session from any thread. The session does not end before every
  // Waker is gone, and each goes by a message to the strand, its last one.
  class Waker {
   public:
    explicit Waker(Session& session) : session_(&session) {
      session_->wakers_.fetch_add(1);
    }
    Waker(const Waker& other) : Waker(*other.session_) {}
    Waker& operator=(const Waker&) = delete;
    ~Waker() {
      asio::post(session_->stream_.get_executor(), [session = session_] {
        session->wakers_.fetch_sub(1);
        session->Wake();
      });
    }
    void operator()() const {
      // One message on its way is enough: what it finds is taken as a whole.
      if (session_->wake_posted_.exchange(true)) return;
      asio::post(session_->stream_.get_executor(), [session = session_] {
        session->wake_posted_.store(false);
        session->Wake();
      });
    }

   private:
    Session* session_;
  };

  enum class Read { kRequest, kRefused, kGone };

  bool Closing() const {
    return context_.connections.phase() != HttpConnections::Phase::kServing;
  }
  void Wake();
  asio::awaitable<void> Wait(std::chrono::steady_clock::duration at_most);
  asio::awaitable<bool> AwaitBytes();
  asio::awaitable<Read> ReadRequest();
  asio::awaitable<void> ReadBody(Parser& parser, error_code& error);
  asio::awaitable<Read> RefuseRead(error_code error);
  asio::awaitable<bool> Write(std::string bytes);
  asio::awaitable<bool> Respond(const HttpResponse& response);
  asio::awaitable<void> Linger();
  asio::awaitable<void> OnWorker(std::function<void()> job);
  asio::awaitable<bool> Handle();
  asio::awaitable<bool> Generate(bool chat);
  asio::awaitable<bool> SendWhole(Generation& generation);
  asio::awaitable<bool> SendStream(Generation& generation);
  asio::awaitable<void> Watch();
  asio::awaitable<void> StopWatching();
  void Log(const Generation* generation, const absl::Status& status) const;

  HttpContext& context_;
  beast::tcp_stream stream_;
  asio::steady_timer timer_;
  beast::flat_buffer buffer_;
  int64_t id_ = 0;  // in HttpConnections

  // Of the request under way.
  HttpRequest request_;
  std::optional<Endpoint> endpoint_;
  int version_ = 11;
  bool keep_alive_ = true;
  Clock::time_point begun_;
  Clock::time_point first_token_;  // epoch = none yet
  int sent_status_ = 0;

  bool idle_ = false;      // nothing of a next request has come
  bool watching_ = false;  // Watch runs
  bool gone_ = false;      // the client hung up
  bool woken_ = false;
  std::atomic<bool> wake_posted_{false};
  std::atomic<int> wakers_{0};
};

void Session::Wake() {
  woken_ = true;
  timer_.cancel();
  const HttpConnections::Phase phase = context_.connections.phase();
  if (phase == HttpConnections::Phase::kCut ||
      (phase == HttpConnections::Phase::kClosing && idle_)) {
    gone_ = true;
    stream_.close();
  }
}

// Returns after a Wake since the last Wait, or after the time.
asio::awaitable<void> Session::Wait(
    std::chrono::steady_clock::duration at_most) {
  if (!woken_) {
    error_code ignored;
    timer_.expires_after(at_most);
    co_await timer_.async_wait(
        asio::redirect_error(asio::use_awaitable, ignored));
  }
  woken_ = false;
}

asio::awaitable<void> Session::Serve() {
  id_ = context_.connections.Add(Waker(*this));
  context_.service.metrics().http_connections.Increment();
  error_code ignored;
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  if (context_.connections.count() > context_.config.max_connections) {
    request_.request_id = RequestId("");
    keep_alive_ = false;
    co_await Respond(ErrorResponse(ToApiError(absl::UnavailableError(
        absl::StrCat("the server has its ", context_.config.max_connections,
                     " connections; try again")))));
    co_await Linger();
  } else {
    while (!Closing()) {
      const Read read = co_await ReadRequest();
      if (read == Read::kGone) break;
      bool go_on = read == Read::kRequest;
      if (go_on) go_on = co_await Handle();
      if (go_on) continue;
      if (!gone_) co_await Linger();
      break;
    }
  }
}

asio::awaitable<void> Session::End() {
  gone_ = true;
  stream_.close();
  context_.connections.Remove(id_);
  context_.service.metrics().http_connections.Decrement();
  while (wakers_.load() > 0 || watching_) {
    co_await Wait(Seconds(context_.config.idle_seconds));
  }
}

// Waits for the first byte of a request. False: the client is gone or idle for
// too long.
asio::awaitable<bool> Session::AwaitBytes() {
  if (buffer_.size() > 0) co_return true;
  error_code error;
  idle_ = true;
  stream_.expires_after(Seconds(context_.config.idle_seconds));
  const size_t bytes = co_await stream_.async_read_some(
      buffer_.prepare(kReadBytes),
      asio::redirect_error(asio::use_awaitable, error));
  idle_ = false;
  buffer_.commit(bytes);
  co_return !error && bytes > 0;
}

asio::awaitable<Session::Read> Session::ReadRequest() {
  const bool more = co_await AwaitBytes();
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
  stream_.expires_after(Seconds(context_.config.read_seconds));
  co_await http::async_read_header(
      stream_, buffer_, parser,
      asio::redirect_error(asio::use_awaitable, error));
  if (error) co_return co_await RefuseRead(error);
  version_ = parser.get().version() == 10 ? 10 : 11;
  keep_alive_ = parser.get().keep_alive();
  request_ = {.method = std::string(parser.get().method_string()),
              .path = PathOf(std::string_view(parser.get().target().data(),
                                              parser.get().target().size())),
              .content_type = Header(parser, http::field::content_type),
              .authorization = Header(parser, http::field::authorization),
              .api_key = Header(parser, "X-Api-Key"),
              .request_id = RequestId(Header(parser, "X-Request-Id"))};
  RouteResult route = Route(request_, context_.config);
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
  stream_.expires_after(Seconds(context_.config.read_seconds));
  if (beast::iequals(parser.get()[http::field::expect], "100-continue")) {
    static constexpr std::string_view kContinue =
        "HTTP/1.1 100 Continue\r\n\r\n";
    co_await asio::async_write(
        stream_, asio::buffer(kContinue.data(), kContinue.size()),
        asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return;
  }
  co_await http::async_read(stream_, buffer_, parser,
                            asio::redirect_error(asio::use_awaitable, error));
}

// Answers a request that could not be read, where there is still somebody.
asio::awaitable<Session::Read> Session::RefuseRead(error_code error) {
  keep_alive_ = false;
  HttpResponse response;
  if (error == http::error::body_limit) {
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
  const bool written = co_await Respond(response);
  co_return written ? Read::kRefused : Read::kGone;
}

asio::awaitable<bool> Session::Write(std::string bytes) {
  error_code error;
  stream_.expires_after(Seconds(context_.config.write_seconds));
  co_await asio::async_write(stream_, asio::buffer(bytes),
                             asio::redirect_error(asio::use_awaitable, error));
  if (error) gone_ = true;
  co_return !error;
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
  co_return co_await Write(std::move(bytes));
}

asio::awaitable<void> Session::Linger() {
  error_code error;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
  stream_.expires_after(kLinger);
  size_t dropped = 0;
  buffer_.clear();
  while (!error && dropped < kLingerBytes) {
    dropped += co_await stream_.async_read_some(
        buffer_.prepare(kReadBytes),
        asio::redirect_error(asio::use_awaitable, error));
  }
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
    co_await OnWorker([&] { response = Answer(endpoint, request_, answer); });
  } else {
    response = Answer(endpoint, request_, answer);
  }
  const bool written = co_await Respond(response);
  co_return written&& keep_alive_;
}

asio::awaitable<bool> Session::Generate(bool chat) {
  absl::StatusOr<std::unique_ptr<Generation>> generation;
  {
    const GenerationArgs args{.service = context_.service,
                              .chat = chat,
                              .body = request_.body,
                              .request_id = request_.request_id,
                              .wake = Waker(*this)};
    co_await OnWorker([&] { generation = Generation::Start(args); });
  }
  request_.body = {};
  if (!generation.ok()) {
    if (absl::IsInvalidArgument(generation.status())) {
      context_.service.metrics().requests_rejected_invalid.Increment();
    }
    const HttpResponse refusal = ErrorResponse(ToApiError(generation.status()));
    const bool written = co_await Respond(refusal);
    Log(nullptr, generation.status());
    co_return written&& keep_alive_;
  }
  watching_ = true;
  asio::co_spawn(stream_.get_executor(), Watch(), asio::detached);
  bool go_on = false;
  if ((*generation)->streamed()) {
    go_on = co_await SendStream(**generation);
  } else {
    go_on = co_await SendWhole(**generation);
  }
  Log(generation->get(), (*generation)->status());
  generation->reset();  // cancels what still runs
  co_await StopWatching();
  co_return go_on && !gone_;
}

asio::awaitable<bool> Session::SendWhole(Generation& generation) {
  std::string unused;
  while (true) {
    generation.Take(unused);
    if (first_token_ == Clock::time_point{} &&
        generation.usage().completion_tokens > 0) {
      first_token_ = Clock::now();
    }
    if (generation.ended() || gone_) break;
    co_await Wait(Seconds(context_.config.ping_seconds));
  }
  if (gone_) co_return false;
  HttpResponse response;
  if (generation.status().ok()) {
    response.body = generation.WholeBody();
  } else {
    response = ErrorResponse(ToApiError(generation.status()));
  }
  const bool written = co_await Respond(response);
  co_return written&& keep_alive_;
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
  while (true) {
    generation.Take(events);
    if (first_token_ == Clock::time_point{} &&
        generation.usage().completion_tokens > 0) {
      first_token_ = Clock::now();
    }
    if (!woken && events.empty()) events = ": still working\n\n";
    if (chunked) {
      AppendChunk(bytes, events);
      if (generation.ended()) bytes += kLastChunk;
    } else {
      bytes += events;
    }
    if (!bytes.empty()) {
      const bool written = co_await Write(std::move(bytes));
      if (!written) co_return false;
    }
    bytes.clear();
    events.clear();
    if (generation.ended()) break;
    const Clock::time_point ping =
        Clock::now() + Seconds(context_.config.ping_seconds);
    co_await Wait(Seconds(context_.config.ping_seconds));
    woken = Clock::now() < ping;
    if (gone_) co_return false;
  }
  // After an error event the connection closes.
  co_return keep_alive_&& generation.status().ok();
}

// Reads ahead while a request is being answered: the only way to see that the
// client hung up while nothing is written.
asio::awaitable<void> Session::Watch() {
  error_code error;
  while (!error && buffer_.size() < kAheadBytes) {
    stream_.expires_never();
    const size_t bytes = co_await stream_.async_read_some(
        buffer_.prepare(kReadBytes),
        asio::redirect_error(asio::use_awaitable, error));
    buffer_.commit(bytes);
  }
  if (error && error != asio::error::operation_aborted) gone_ = true;
  watching_ = false;
  Wake();
}

asio::awaitable<void> Session::StopWatching() {
  error_code ignored;
  stream_.socket().cancel(ignored);
  while (watching_) co_await Wait(Seconds(context_.config.ping_seconds));
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
