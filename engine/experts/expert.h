#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <vector>

namespace bullpen {

// One expert of one layer. A dense layer is a layer of one expert.
struct ExpertKey {
  int32_t layer = 0;
  int32_t expert = 0;
  friend auto operator<=>(const ExpertKey&, const ExpertKey&) = default;
};

// Two places and the way between them, by the names that metrics say. Code that
// moves experts knows no more of either.
struct Link {
  std::string from = "disk";
  std::string to = "ram";
};

// Where an expert's blob lies in the packed model. `offset` and the layer's
// `blob_bytes` are multiples of 4096, so that one O_DIRECT read moves it.
struct ExpertLocation {
  int32_t file = 0;  // index into ExpertCatalog::files
  int64_t offset = 0;
  uint64_t checksum = 0;  // XXH3_64bits of the blob_bytes
};

// All experts of a packed model, by layer.
struct ExpertCatalog {
  struct Layer {
    int64_t blob_bytes = 0;
    std::vector<ExpertLocation> experts;
  };
  std::vector<std::string> files;  // absolute paths
  std::vector<Layer> layers;
};

// What a lookup is for: accounting, and what may be evicted for it.
enum class Phase : uint8_t { kPrefill, kDecode };

}  // namespace bullpen
