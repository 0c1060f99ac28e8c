#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/translate.h"
#include "tools/options.h"

namespace bullpen {

// The flags that say how tokens are drawn; unset ones are the model's own.
struct SamplingFlags {
  std::optional<int32_t> max_tokens;
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<uint64_t> seed;
  std::optional<float> repetition_penalty;
  std::vector<std::string> stop;
};

void AddSamplingFlags(CLI::App& app, SamplingFlags& flags);
void SetSampling(const SamplingFlags& flags, GenerateParams& params);

}  // namespace bullpen
