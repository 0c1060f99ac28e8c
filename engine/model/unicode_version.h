#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bullpen {

// The Unicode versions of the libraries that published tokenizers were made
// with differ from those of ours, and ids must not.

// True for a character that a normal form leaves alone where utf8proc would
// not: a mark that got its combining class after Unicode 9, which is what the
// reference normaliser knows, and U+11A7, which utf8proc composes away.
bool IsInertInNormalForms(int32_t code_point);

// Whether the reference normaliser takes a character for a mark (category M),
// as of Unicode 9.
bool IsMark(int32_t code_point);

// `text` with each character of Unicode 15 and 16 replaced by an older one of
// the same general category, script and length, for PCRE2, which knows
// version 14. The result is `text` itself, or a view of `storage`.
std::string_view WithOlderCharacters(std::string_view text,
                                     std::string& storage);

}  // namespace bullpen
