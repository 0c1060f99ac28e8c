#pragma once

#include <cstdint>
#include <vector>

#include "engine/experts/accounts.h"
#include "engine/experts/oracle_window.h"

namespace bullpen {

// What the cache holds now; see ExpertCache::Snapshot.
struct CacheSnapshot {
  struct Layer {
    int32_t experts = 0;
    int32_t slots = 0;       // resident, loading, or else empty
    int64_t slot_bytes = 0;  // of one slot
    uint64_t lookups = 0;
    uint64_t hits = 0;
    // Expert ids, ascending.
    std::vector<int32_t> resident = {};
    std::vector<int32_t> loading = {};
    // What the policy gives each resident one; the least goes first.
    std::vector<float> scores = {};
  };
  int64_t arena_bytes = 0;  // of all slots
  uint64_t loads = 0;
  uint64_t load_failures = 0;
  uint64_t bytes_loaded = 0;
  LookupCounts decode = {};
  LookupCounts prefill = {};
  TransferredBytes transferred = {};
  double stall_seconds = 0;
  double link_busy_seconds = 0;
  OracleWindow::Hits recent = {};
  std::vector<Layer> layers = {};
};

}  // namespace bullpen
