#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bullpen {

// One step of decoding: what starts at a byte position.
struct Utf8Step {
  enum Kind { kCharacter, kInvalid, kIncomplete };
  Kind kind = kCharacter;
  int32_t code_point = 0;  // of a character
  // Bytes taken. An invalid step is a maximal subpart (Unicode 3.9, the rule
  // of every lossy decoder), an incomplete one reaches the end of the text.
  size_t bytes = 0;
};

// pos < text.size().
Utf8Step NextUtf8(std::string_view text, size_t pos);

// Appends `bytes` to `out`, each maximal invalid subpart as U+FFFD.
void AppendLossyUtf8(std::string_view bytes, std::string& out);

// How many bytes at the end begin a character that more bytes may complete.
size_t IncompleteUtf8Tail(std::string_view bytes);

void AppendUtf8(int32_t code_point, std::string& out);

// The code points of valid UTF-8.
std::vector<int32_t> CodePoints(std::string_view text);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

}  // namespace bullpen
