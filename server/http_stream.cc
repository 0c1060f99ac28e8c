#include "server/http_stream.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "boost/asio/buffer.hpp"
#include "boost/asio/co_spawn.hpp"
#include "boost/asio/detached.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/redirect_error.hpp"
#include "boost/asio/use_awaitable.hpp"
#include "boost/asio/write.hpp"

namespace bullpen {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using ServerPhase = HttpConnections::Phase;

// What a client may send ahead while its present request is answered.
constexpr size_t kAheadBytes = 64 << 10;
constexpr size_t kReadBytes = 4096;
constexpr size_t kLingerBytes = 16 << 20;
constexpr double kLingerSeconds = 2;

}  // namespace

std::chrono::steady_clock::duration ToDuration(double seconds) {
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(seconds));
}

HttpStream::Waker::Waker(HttpStream& stream) : stream_(&stream) {
  stream_->wakers_.fetch_add(1);
  stream_->connections_.HoldExecutor();
}

HttpStream::Waker::~Waker() {
  HttpConnections& connections = stream_->connections_;
  {
    // The stream may be gone as soon as this is posted.
    auto executor = stream_->stream_.get_executor();
    asio::post(executor, [stream = stream_] {
      stream->wakers_.fetch_sub(1);
      stream->Wake();
    });
  }
  connections.ReleaseExecutor();
}

void HttpStream::Waker::operator()() const {
  stream_->wake_wanted_.store(true);
  // One message on its way is enough: what it finds is taken as a whole.
  if (stream_->wake_posted_.exchange(true)) return;
  asio::post(stream_->stream_.get_executor(), [stream = stream_] {
    stream->wake_wanted_.store(false);
    stream->wake_posted_.store(false);
    stream->Wake();
  });
}

HttpStream::HttpStream(asio::ip::tcp::socket socket, const HttpConfig& config,
                       HttpConnections& connections)
    : config_(config),
      connections_(connections),
      stream_(std::move(socket)),
      timer_(stream_.get_executor()),
      buffer_(kAheadBytes + kReadBytes + config.max_header_bytes) {
  error_code ignored;
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  id_ = connections_.Add(Waker(*this));
}

void HttpStream::Wake() {
  woken_ = true;
  timer_.cancel();
  const ServerPhase phase = connections_.phase();
  if (phase == ServerPhase::kCut || (phase == ServerPhase::kClosing && idle_)) {
    gone_ = true;
    stream_.close();
  }
}

asio::awaitable<void> HttpStream::Wait(
    std::chrono::steady_clock::duration at_most) {
  if (!woken_) {
    error_code ignored;
    timer_.expires_after(at_most);
    co_await timer_.async_wait(
        asio::redirect_error(asio::use_awaitable, ignored));
  }
  woken_ = false;
}

asio::awaitable<void> HttpStream::Pause(Clock::time_point until) {
  while (!gone_ && Clock::now() < until) {
    // As if a message were on its way: nobody posts another.
    wake_posted_.store(true);
    error_code ignored;
    timer_.expires_at(until);
    co_await timer_.async_wait(
        asio::redirect_error(asio::use_awaitable, ignored));
  }
  wake_posted_.store(false);
  if (wake_wanted_.exchange(false)) Wake();
}

void HttpStream::SkipLineEnds() {
  const asio::const_buffer ahead = buffer_.data();
  const std::string_view bytes(static_cast<const char*>(ahead.data()),
                               ahead.size());
  const size_t line_ends = bytes.find_first_not_of("\r\n");
  buffer_.consume(std::min(line_ends, bytes.size()));
}

asio::awaitable<bool> HttpStream::AwaitBytes(double idle_seconds) {
  // Some clients send a line end behind a body (RFC 9112, 2.2).
  SkipLineEnds();
  error_code error;
  idle_ = true;
  stream_.expires_after(ToDuration(idle_seconds));
  while (!error && buffer_.size() == 0) {
    const size_t bytes = co_await stream_.async_read_some(
        buffer_.prepare(kReadBytes),
        asio::redirect_error(asio::use_awaitable, error));
    buffer_.commit(bytes);
    SkipLineEnds();
  }
  idle_ = false;
  co_return !error;
}

asio::awaitable<bool> HttpStream::Write(std::string bytes) {
  error_code error;
  stream_.expires_after(ToDuration(config_.write_seconds));
  co_await asio::async_write(stream_, asio::buffer(bytes),
                             asio::redirect_error(asio::use_awaitable, error));
  if (error) gone_ = true;
  co_return !error;
}

asio::awaitable<void> HttpStream::Linger() {
  error_code error;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
  stream_.expires_after(ToDuration(kLingerSeconds));
  buffer_.clear();
  size_t dropped = 0;
  while (!error && dropped < kLingerBytes) {
    dropped += co_await stream_.async_read_some(
        buffer_.prepare(kReadBytes),
        asio::redirect_error(asio::use_awaitable, error));
  }
}

void HttpStream::StartWatching() {
  watching_ = true;
  stop_watching_ = false;
  asio::co_spawn(stream_.get_executor(), Watch(), asio::detached);
}

asio::awaitable<void> HttpStream::Watch() {
  error_code error;
  while (!error && !stop_watching_ && buffer_.size() < kAheadBytes) {
    stream_.expires_never();  // of reads; a write under way keeps its deadline
    const size_t bytes = co_await stream_.async_read_some(
        buffer_.prepare(kReadBytes),
        asio::redirect_error(asio::use_awaitable, error));
    buffer_.commit(bytes);
  }
  if (error && error != asio::error::operation_aborted) gone_ = true;
  watching_ = false;
  Wake();
}

asio::awaitable<void> HttpStream::StopWatching() {
  // Cancelling does nothing to a read that has not begun, or whose end is
  // already on its way to Watch: that one learns it from the flag.
  stop_watching_ = true;
  error_code ignored;
  stream_.socket().cancel(ignored);
  while (watching_) co_await Wait(ToDuration(config_.ping_seconds));
}

asio::awaitable<void> HttpStream::End() {
  gone_ = true;
  stream_.close();
  connections_.Remove(id_);
  while (wakers_.load() > 0 || watching_) {
    co_await Wait(ToDuration(config_.idle_seconds));
  }
}

}  // namespace bullpen
