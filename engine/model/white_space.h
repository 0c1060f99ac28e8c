#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bullpen {

// Unicode's property White_Space, which trimming goes by.
bool IsWhiteSpace(int32_t code_point);

// Where the last character of `text` (not empty, valid UTF-8) starts.
size_t LastCharacterStart(std::string_view text);

// Where the white space that ends text[floor, end) begins.
size_t WhiteSpaceBefore(std::string_view text, size_t end, size_t floor);

// Where the white space that begins at `begin` ends.
size_t WhiteSpaceAfter(std::string_view text, size_t begin);

}  // namespace bullpen
