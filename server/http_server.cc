#include "server/http_server.h"

#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "base/strings.h"
#include "boost/asio/co_spawn.hpp"
#include "boost/asio/detached.hpp"
#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/redirect_error.hpp"
#include "boost/asio/steady_timer.hpp"
#include "boost/asio/strand.hpp"
#include "boost/asio/use_awaitable.hpp"
#include "server/http_session.h"

namespace bullpen {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using ServerPhase = HttpConnections::Phase;

// How long to wait after accept failed, as it does when descriptors run out.
constexpr std::chrono::milliseconds kAcceptPause{50};
// Connections over the limit are told so, up to this many at a time.
constexpr int32_t kRefusedAtATime = 64;

int64_t UnixSeconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

struct HttpServer::State {
  State(Service& service, const HttpConfig& http)
      : config(http),
        workers(static_cast<size_t>(http.worker_threads)),
        context{service, config, UnixSeconds(), workers, connections},
        acceptor(asio::make_strand(io)) {}

  absl::Status Bind();
  asio::awaitable<void> Accept();

  const HttpConfig config;
  HttpConnections connections;
  asio::io_context io;
  asio::thread_pool workers;
  HttpContext context;
  asio::ip::tcp::acceptor acceptor;
  std::vector<std::jthread> threads;
  uint16_t port = 0;
  bool shut_down = false;
};

absl::Status HttpServer::State::Bind() {
  const auto refuse = [&](const error_code& error) {
    return absl::UnavailableError(absl::StrCat("cannot listen for HTTP on ",
                                               config.host, ":", config.port,
                                               ": ", error.message()));
  };
  error_code error;
  asio::ip::tcp::resolver resolver(io);
  const auto found = resolver.resolve(config.host, std::to_string(config.port),
                                      asio::ip::tcp::resolver::passive, error);
  if (error) return refuse(error);
  const asio::ip::tcp::endpoint endpoint = *found.begin();
  acceptor.open(endpoint.protocol(), error);
  if (!error) {
    acceptor.set_option(asio::socket_base::reuse_address(true), error);
  }
  if (!error) acceptor.bind(endpoint, error);
  if (!error) {
    acceptor.listen(asio::socket_base::max_listen_connections, error);
  }
  if (error) return refuse(error);
  port = acceptor.local_endpoint(error).port();
  return absl::OkStatus();
}

asio::awaitable<void> HttpServer::State::Accept() {
  asio::steady_timer pause(acceptor.get_executor());
  while (connections.phase() == ServerPhase::kServing) {
    error_code error;
    asio::ip::tcp::socket socket(asio::make_strand(io));
    co_await acceptor.async_accept(
        socket, asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_aborted) co_return;
    if (error) {
      pause.expires_after(kAcceptPause);
      co_await pause.async_wait(
          asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    if (connections.count() >= config.max_connections + kRefusedAtATime) {
      continue;  // closes the socket
    }
    const auto strand = socket.get_executor();
    asio::co_spawn(strand, ServeConnection(context, std::move(socket)),
                   asio::detached);
  }
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Listen(
    Service& service, const HttpConfig& config) {
  auto state = std::make_unique<State>(service, config);
  const absl::Status bound = state->Bind();
  if (!bound.ok()) return bound;
  asio::co_spawn(state->acceptor.get_executor(), state->Accept(),
                 asio::detached);
  for (int32_t i = 0; i < config.threads; ++i) {
    state->threads.emplace_back([&io = state->io] { io.run(); });
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

HttpServer::HttpServer(std::unique_ptr<State> state)
    : state_(std::move(state)) {}

HttpServer::~HttpServer() { Shutdown(Clock::now()); }

uint16_t HttpServer::port() const { return state_->port; }

void HttpServer::Shutdown(Clock::time_point until) {
  if (std::exchange(state_->shut_down, true)) return;
  state_->connections.Enter(ServerPhase::kClosing);
  asio::post(state_->acceptor.get_executor(), [state = state_.get()] {
    error_code ignored;
    state->acceptor.close(ignored);
  });
  if (!state_->connections.WaitEmpty(until)) {
    state_->connections.Enter(ServerPhase::kCut);
  }
  // The threads end when no connection is left.
  state_->threads.clear();
  state_->connections.WaitExecutorsReleased();
  state_->workers.join();
}

}  // namespace bullpen
