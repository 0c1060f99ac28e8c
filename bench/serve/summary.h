#pragma once

#include <string>
#include <string_view>

#include "bench/serve/load.h"
#include "nlohmann/json.hpp"

namespace bullpen::bench {

// The model name of this machine's CPU.
std::string CpuName();

// What one run showed:
// - tokens_per_second: all tokens by the wall time of the run;
// - decode_tokens_per_second: of one stream, after its first token (median);
// - first_token_ms, inter_token_ms: percentiles over requests, over events.
nlohmann::json Summarize(std::string_view transport, const LoadConfig& config,
                         const LoadTimes& times);

}  // namespace bullpen::bench
