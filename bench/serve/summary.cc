#include "bench/serve/summary.h"

#include <algorithm>
#include <cmath>
#include <fstream>

namespace bullpen::bench {
namespace {

double Seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// The nearest-rank percentile; 0 of nothing.
double Percentile(std::vector<double>& values, double percent) {
  if (values.empty()) return 0;
  const size_t rank = static_cast<size_t>(
      std::ceil(percent / 100 * static_cast<double>(values.size())));
  const size_t index = rank > 0 ? rank - 1 : 0;
  std::nth_element(values.begin(), values.begin() + index, values.end());
  return values[index];
}

nlohmann::json Percentiles(std::vector<double> seconds) {
  return {{"p50", Percentile(seconds, 50) * 1e3},
          {"p99", Percentile(seconds, 99) * 1e3},
          {"max", Percentile(seconds, 100) * 1e3},
          {"count", seconds.size()}};
}

}  // namespace

std::string CpuName() {
  constexpr std::string_view kKey = "model name";
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(": ");
    if (line.starts_with(kKey) && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown";
}

nlohmann::json Summarize(std::string_view transport, const LoadConfig& config,
                         const LoadTimes& times) {
  std::vector<double> first_token, inter_token, decode_rate;
  int64_t tokens = 0;
  for (const StreamTimes& stream : times.streams) {
    tokens += stream.tokens;
    if (stream.events.empty()) continue;
    first_token.push_back(Seconds(stream.events.front() - stream.sent));
    for (size_t i = 1; i < stream.events.size(); ++i) {
      inter_token.push_back(Seconds(stream.events[i] - stream.events[i - 1]));
    }
    const double decode = Seconds(stream.events.back() - stream.events.front());
    if (decode > 0) {
      decode_rate.push_back(static_cast<double>(stream.tokens - 1) / decode);
    }
  }
  const double wall = Seconds(times.end - times.begin);
  return {{"transport", transport},
          {"parallel", config.parallel},
          {"requests", config.requests},
          {"prompt_tokens", config.prompt_tokens},
          {"max_tokens", config.max_tokens},
          {"tokens", tokens},
          {"tokens_per_second", static_cast<double>(tokens) / wall},
          {"decode_tokens_per_second", Percentile(decode_rate, 50)},
          {"first_token_ms", Percentiles(std::move(first_token))},
          {"inter_token_ms", Percentiles(std::move(inter_token))}};
}

}  // namespace bullpen::bench
