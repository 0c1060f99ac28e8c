#include "engine/model/white_space.h"

#include <utf8proc.h>

#include "engine/model/utf8.h"

namespace bullpen {

bool IsWhiteSpace(int32_t code_point) {
  if (code_point >= 0x09 && code_point <= 0x0D) return true;
  if (code_point == 0x85) return true;
  const utf8proc_category_t category = utf8proc_category(code_point);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}

size_t LastCharacterStart(std::string_view text) {
  size_t pos = text.size() - 1;
  while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80) {
    --pos;
  }
  return pos;
}

size_t WhiteSpaceBefore(std::string_view text, size_t end, size_t floor) {
  while (end > floor) {
    const size_t start = LastCharacterStart(text.substr(0, end));
    if (start < floor || !IsWhiteSpace(NextUtf8(text, start).code_point)) break;
    end = start;
  }
  return end;
}

size_t WhiteSpaceAfter(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Utf8Step step = NextUtf8(text, begin);
    if (!IsWhiteSpace(step.code_point)) break;
    begin += step.bytes;
  }
  return begin;
}

}  // namespace bullpen
