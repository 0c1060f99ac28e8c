#include "engine/model/chars_map.h"

#include <algorithm>
#include <cstring>

#include "base/strings.h"
#include "engine/model/utf8.h"

namespace bullpen {
namespace {

// Keys are sequences of a few characters; a damaged trie could go in circles.
constexpr size_t kMaxKeyBytes = 256;

// The fields of a unit of a double array.
uint32_t Label(uint32_t unit) { return unit & 0x800000FF; }
uint32_t Offset(uint32_t unit) {
  return (unit >> 10) << ((unit & (uint32_t{1} << 9)) >> 6);
}
bool HasLeaf(uint32_t unit) { return ((unit >> 8) & 1) != 0; }
uint32_t Value(uint32_t unit) { return unit & 0x7FFFFFFF; }

}  // namespace

absl::StatusOr<CharsMap> CharsMap::Parse(std::string_view bytes) {
  uint32_t size = 0;
  if (bytes.size() >= sizeof(size)) {
    std::memcpy(&size, bytes.data(), sizeof(size));
    bytes.remove_prefix(sizeof(size));
  }
  if (size == 0 || size > bytes.size() || size % sizeof(uint32_t) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("precompiled_charsmap: a trie of ", size,
                     " bytes does not fit into ", bytes.size()));
  }
  CharsMap map;
  map.units_.resize(size / sizeof(uint32_t));
  std::memcpy(map.units_.data(), bytes.data(), size);
  map.texts_ = bytes.substr(size);
  return map;
}

size_t CharsMap::LongestPrefix(std::string_view text,
                               std::string_view& to) const {
  size_t longest = 0;
  size_t node = Offset(units_[0]);
  for (size_t i = 0; i < std::min(text.size(), kMaxKeyBytes); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (node >= units_.size() || Label(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= Offset(unit);
    if (!HasLeaf(unit)) continue;
    if (node >= units_.size()) break;
    const size_t begin = Value(units_[node]);
    if (begin >= texts_.size()) break;
    to = std::string_view(texts_).substr(begin);
    to = to.substr(0, to.find('\0'));
    longest = i + 1;
  }
  return longest;
}

std::string CharsMap::Apply(std::string_view text) const {
  std::string out;
  while (!text.empty()) {
    std::string_view to;
    size_t bytes = LongestPrefix(text, to);
    if (bytes == 0) {
      bytes = NextUtf8(text, 0).bytes;
      to = text.substr(0, bytes);
    }
    out.append(to);
    text.remove_prefix(bytes);
  }
  return out;
}

}  // namespace bullpen
