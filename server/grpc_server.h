#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "server/service.h"

namespace bullpen {

struct GrpcConfig {
  std::string host = "127.0.0.1";
  uint16_t port = 50051;     // 0 = any free one
  int32_t max_calls = 4096;  // under way
  // Memory of the requests that wait for a worker or are with one; one alone
  // may take more.
  int64_t max_request_bytes = int64_t{64} << 20;
  double write_seconds = 30;  // for one write; a slower reader's call ends
  std::vector<std::string> api_keys = {};  // empty = open to all
  // Clients may ping as often, with and without calls. gRPC's own limit, one
  // in five minutes, closes the connection of a client that pings every ten
  // seconds while its call waits; that is how proxies are kept from dropping
  // silent connections.
  int32_t min_ping_ms = 5000;
};

// The gRPC front end: bullpen.v1.Inference, grpc.health.v1 and reflection (the
// last two never ask for a key). Owns its port and threads; borrows the
// Service. Messages are limited by Service::limits().
class GrpcServer {
 public:
  // Listens and answers from now on; NOT_SERVING until SetServing.
  // Unavailable names host:port when it cannot be bound.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Listen(
      Service& service, const GrpcConfig& config);
  // As Shutdown(now). The engine must be stopped, or never have been.
  ~GrpcServer();

  uint16_t port() const;

  // What grpc.health.v1 says, for "" and for "bullpen.v1.Inference".
  void SetServing(bool serving);

  // Takes no more calls, waits for those under way until the time is up, then
  // cuts them. Idempotent.
  void Shutdown(Clock::time_point until);

 private:
  struct State;
  explicit GrpcServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace bullpen
