#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "boost/asio/awaitable.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/steady_timer.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/core/tcp_stream.hpp"
#include "server/http_connections.h"
#include "server/http_server.h"

namespace bullpen {

// One client's socket: no operation without a deadline, news of a hang-up while
// nothing is read or written, and a way for other threads to wake its
// coroutine. Runs on the socket's strand, but Waker.
class HttpStream {
 public:
  HttpStream(boost::asio::ip::tcp::socket socket, const HttpConfig& config,
             HttpConnections& connections);

  // Wakes the stream from any thread. The stream does not end before every
  // Waker is gone, and each goes by a message to the strand, its last one.
  class Waker {
   public:
    explicit Waker(HttpStream& stream);
    Waker(const Waker& other) : Waker(*other.stream_) {}
    Waker& operator=(const Waker&) = delete;
    ~Waker();
    void operator()() const;

   private:
    HttpStream* stream_;
  };

  // Waits for the first byte of a request. False: the client is gone, or idle
  // for longer than that.
  boost::asio::awaitable<bool> AwaitBytes(double idle_seconds);
  // False: gone, or not all was taken in time.
  boost::asio::awaitable<bool> Write(std::string bytes);
  // Closes our half and drops what still comes, for a moment: closing at once
  // would reset the connection under an answer to what was not fully read.
  boost::asio::awaitable<void> Linger();
  // Returns after a wake since the last Wait, or after the time.
  boost::asio::awaitable<void> Wait(
      std::chrono::steady_clock::duration at_most);
  // Returns at `until`, or when the client has gone. What wakes the stream
  // meanwhile is found by the next Wait, and costs other threads nothing.
  boost::asio::awaitable<void> Pause(Clock::time_point until);
  // Between the two the stream reads ahead, the only way to see a hang-up.
  void StartWatching();
  boost::asio::awaitable<void> StopWatching();
  // Closes the socket and waits until nothing refers to this object.
  boost::asio::awaitable<void> End();

  // The client hung up or was cut off. Any thread.
  bool gone() const { return gone_.load(std::memory_order_relaxed); }
  // For reading requests.
  boost::beast::tcp_stream& socket() { return stream_; }
  boost::beast::flat_buffer& buffer() { return buffer_; }

 private:
  void Wake();
  void SkipLineEnds();
  boost::asio::awaitable<void> Watch();

  const HttpConfig& config_;
  HttpConnections& connections_;
  boost::beast::tcp_stream stream_;
  boost::asio::steady_timer timer_;
  boost::beast::flat_buffer buffer_;
  int64_t id_ = 0;         // in connections_
  bool idle_ = false;      // nothing of a next request has come
  bool watching_ = false;  // Watch runs
  bool stop_watching_ = false;
  std::atomic<bool> gone_{false};
  bool woken_ = false;
  std::atomic<bool> wake_wanted_{false};  // since the last message, or Pause
  std::atomic<bool> wake_posted_{false};
  std::atomic<int> wakers_{0};
};

std::chrono::steady_clock::duration ToDuration(double seconds);

}  // namespace bullpen
