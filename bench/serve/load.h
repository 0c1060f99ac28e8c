#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bullpen::bench {

using Clock = std::chrono::steady_clock;

// What is asked of the server: `requests` generations, `parallel` at a time,
// greedy, each of exactly `max_tokens` tokens.
struct LoadConfig {
  int32_t parallel = 1;
  int32_t requests = 8;
  int32_t prompt_tokens = 64;
  int32_t max_tokens = 256;
};

// One generation as its client saw it.
struct StreamTimes {
  Clock::time_point sent;
  std::vector<Clock::time_point> events{};  // arrivals; an event has >= 1 token
  int64_t tokens = 0;
};

struct LoadTimes {
  Clock::time_point begin;
  Clock::time_point end{};
  std::vector<StreamTimes> streams{};
};

// A way to the model: HTTP or gRPC.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual std::string_view name() const = 0;
  virtual absl::StatusOr<LoadTimes> Run(const LoadConfig& config) = 0;
};

// The prompt of request `index`: ids that differ from those of every other
// index early on, so that nothing computed for one prompt serves another.
std::vector<int32_t> PromptIds(const LoadConfig& config, int32_t index);

}  // namespace bullpen::bench
