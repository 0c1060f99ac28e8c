#pragma once

#include <cstdint>
#include <vector>

#include "engine/experts/policy.h"

namespace bullpen {

// At which loads an expert is compared with its checksum: at each, or until it
// was right once.
enum class Verification : uint8_t { kAlways, kOnce };

struct CacheConfig {
  std::vector<int32_t> slots;            // per layer, 1..experts
  std::vector<int32_t> floors = {};      // see SlotPool; empty: as slots
  PolicyKind policy = PolicyKind::kCrf;  // not kBelady
  double half_life_tokens = 0;           // 0: chosen on-line
  Verification verification = Verification::kAlways;
  int32_t oracle_window = 256;  // see OracleWindow; 0: none
};

}  // namespace bullpen
