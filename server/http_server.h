#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "server/service.h"

namespace bullpen {

struct HttpConfig {
  std::string host = "127.0.0.1";
  uint16_t port = 8080;           // 0 = any free one
  int32_t threads = 1;            // of input and output
  int32_t worker_threads = 2;     // parsing, templates, tokenising
  int32_t max_connections = 512;  // more get a 503, but for probes
  int32_t max_header_bytes = 16 << 10;
  // Bodies that are being read or wait to be parsed, together; one of the
  // longest allowed is always taken. Others get a 503.
  int64_t max_bodies_bytes = int64_t{64} << 20;
  double read_seconds = 30;       // for a whole header, then a whole body
  double idle_seconds = 120;      // between two requests
  double write_seconds = 30;      // for one write; a slower reader is dropped
  double ping_seconds = 15;       // of silence before a comment in a stream
  double heartbeat_seconds = 60;  // an engine silent for longer is not alive
  std::vector<std::string> api_keys;  // empty = open to all
  bool open_metrics = false;          // /metrics without a key
  std::string version;                // what /version says
};

// The OpenAI-compatible HTTP front end. Owns its sockets and threads; borrows
// the Service. /health and /ready never ask for a key. Body and other limits
// are those of Service::limits().
class HttpServer {
 public:
  // Listens and serves from now on, also while the model is loading.
  // Unavailable names host:port when it cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Listen(
      Service& service, const HttpConfig& config);
  ~HttpServer();  // As Shutdown(now).

  uint16_t port() const;

  // Closes the listening socket and idle connections, waits until responses
  // under way are written or the time is up, then cuts what is left. To drain,
  // first let the Service refuse work and the engine finish: until Shutdown
  // the server goes on answering, /ready among others. The engine must still
  // be able to finish its requests (running, or stopped). Idempotent.
  void Shutdown(Clock::time_point until);

 private:
  struct State;
  explicit HttpServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace bullpen
