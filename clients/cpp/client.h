#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bullpen/v1/inference.grpc.pb.h"

namespace bullpen::client {

struct ClientOptions {
  std::string api_key;  // empty = none is sent
  // Of one call, streaming included; a server has its own limit as well.
  std::chrono::milliseconds deadline = std::chrono::minutes(10);
};

// A whole generation: what its stream said, put together.
struct Completion {
  std::string request_id;
  std::string text;
  std::vector<v1::Token> tokens;
  v1::Finish finish;
};

// A connection to a Bullpen server. Messages are those of the wire contract
// (proto/bullpen/v1/inference.proto); this adds the key, the deadline and
// canonical status codes. Any number of threads may call it.
class Client {
 public:
  // `target`: "HOST:PORT". Connects with the first call, and again whenever
  // the connection was lost. No encryption: put TLS in front of the server.
  explicit Client(const std::string& target, ClientOptions options = {});

  // Sees each message of a stream as it comes; false cancels the generation.
  using OnMessage = std::function<bool(const v1::GenerateResponse&)>;

  // Cancelled when `on_message` said so. ResourceExhausted: the queue is full,
  // try again later. Unavailable: loading, draining or not reachable.
  absl::StatusOr<Completion> Generate(const v1::GenerateRequest& request,
                                      const OnMessage& on_message = nullptr);

  absl::StatusOr<std::vector<int32_t>> Tokenize(
      const std::string& text, bool add_special_tokens = false);
  absl::StatusOr<std::string> Detokenize(const std::vector<int32_t>& ids,
                                         bool skip_special_tokens = false);
  absl::StatusOr<v1::GetModelResponse> GetModel();
  absl::StatusOr<v1::GetExpertCacheResponse> GetExpertCache();

 private:
  void Prepare(grpc::ClientContext& context) const;

  const ClientOptions options_;
  const std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace bullpen::client
