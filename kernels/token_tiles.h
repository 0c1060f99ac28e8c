#pragma once

#include <cstdint>

#include "kernels/int8_dot.h"
#include "kernels/prefetch.h"

// Rows of x in tiles, and what is prefetched while they pass.

namespace bullpen::kernels {
namespace {

// Tokens [begin, end) in tiles of nearly equal size, none above `most`.
class TokenTiles {
 public:
  TokenTiles(int64_t begin, int64_t end, int most)
      : begin_(begin), rows_(end - begin), count_((rows_ + most - 1) / most) {}

  int64_t count() const { return count_; }
  int64_t first(int64_t tile) const { return begin_ + rows_ * tile / count_; }
  int rows(int64_t tile) const {
    return static_cast<int>(first(tile + 1) - first(tile));
  }

 private:
  int64_t begin_;
  int64_t rows_;
  int64_t count_;
};

// Of plain weights the first tiles ask memory for what follows; the second does
// so, too, as a part of F32 with gate and up may be too large for the L2.
inline constexpr int64_t kColdTiles = 2;

// For panels that one of the tiles reads: the first one finds them in memory,
// the others in a cache, so these share the reading of what stands `next` bytes
// behind (0: unknown).
inline ReadAhead AheadOf(const TokenTiles& tiles, int64_t tile, int64_t next) {
  // Behind a panel stands another.
  if (tile == 0) return {.bytes = CodesPrefetch(tiles.rows(0))};
  return {.bytes = next,
          .every = static_cast<int32_t>(tiles.count() - 1),
          .first = static_cast<int32_t>(tile - 1)};
}

}  // namespace
}  // namespace bullpen::kernels
