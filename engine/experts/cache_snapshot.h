#pragma once

#include <cstdint>
#include <vector>

#include "engine/experts/accounts.h"

namespace bullpen {

// What the cache holds now; see ExpertCache::Snapshot.
struct CacheSnapshot {
  struct Layer {
    int32_t experts = 0;
    int32_t slots = 0;
    int32_t loading = 0;
    uint64_t lookups = 0;
    uint64_t hits = 0;
    std::vector<int32_t> resident;  // expert ids, ascending
  };
  int64_t slot_bytes = 0;  // of the whole arena
  uint64_t loads = 0;
  uint64_t load_failures = 0;
  uint64_t bytes_loaded = 0;
  LookupCounts decode = {};
  LookupCounts prefill = {};
  TransferredBytes transferred = {};
  double stall_seconds = 0;
  std::vector<Layer> layers = {};
};

}  // namespace bullpen
