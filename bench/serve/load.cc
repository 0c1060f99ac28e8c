#include "bench/serve/load.h"

#include <random>

namespace bullpen::bench {

std::vector<int32_t> PromptIds(const LoadConfig& config, int32_t index) {
  // Ids that every vocabulary has, without the lowest, often special ones.
  constexpr int32_t kFirst = 20;
  constexpr int32_t kLast = 299;
  std::minstd_rand random(static_cast<uint32_t>(index) + 1);
  std::uniform_int_distribution<int32_t> id(kFirst, kLast);
  std::vector<int32_t> ids(config.prompt_tokens);
  for (int32_t& value : ids) value = id(random);
  return ids;
}

}  // namespace bullpen::bench
