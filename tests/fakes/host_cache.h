#pragma once

#include "base/huge_buffer.h"
#include "engine/experts/cache.h"

namespace bullpen {

struct HostArena {
  HugeBuffer arena;
};

// An expert cache with an arena of its own, in host memory.
class HostCache : private HostArena, public ExpertCache {
 public:
  HostCache(const ExpertCatalog& catalog, const CacheConfig& config,
            TransferQueue& transfers, Metrics& metrics)
      : HostArena{*HugeBuffer::Allocate(ArenaBytes(catalog, config.slots))},
        ExpertCache(catalog, config, arena.span(), transfers, metrics) {}
};

}  // namespace bullpen
