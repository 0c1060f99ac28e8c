#include "engine/model/utf8.h"

#include <algorithm>

namespace bullpen {
namespace {

// Length of the sequence that `lead` starts, 0 if it starts none, and the
// range of the second byte (Unicode table 3-7).
struct Lead {
  size_t length;
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
};

Lead LeadOf(unsigned char lead) {
  if (lead < 0x80) return {1};
  if (lead >= 0xC2 && lead <= 0xDF) return {2};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead >= 0xE1 && lead <= 0xEF) return {3};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead >= 0xF1 && lead <= 0xF3) return {4};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

}  // namespace

Utf8Step NextUtf8(std::string_view text, size_t pos) {
  const auto byte = [&](size_t i) {
    return static_cast<unsigned char>(text[pos + i]);
  };
  const Lead lead = LeadOf(byte(0));
  if (lead.length == 1) return {Utf8Step::kCharacter, byte(0), 1};
  if (lead.length == 0) return {Utf8Step::kInvalid, 0, 1};
  int32_t code_point = byte(0) & (0x7F >> lead.length);
  for (size_t i = 1; i < lead.length; ++i) {
    if (pos + i == text.size()) return {Utf8Step::kIncomplete, 0, i};
    const unsigned char low = i == 1 ? lead.low : 0x80;
    const unsigned char high = i == 1 ? lead.high : 0xBF;
    if (byte(i) < low || byte(i) > high) return {Utf8Step::kInvalid, 0, i};
    code_point = (code_point << 6) | (byte(i) & 0x3F);
  }
  return {Utf8Step::kCharacter, code_point, lead.length};
}

void AppendLossyUtf8(std::string_view bytes, std::string& out) {
  size_t pos = 0;
  size_t copied = 0;
  while (pos < bytes.size()) {
    const Utf8Step step = NextUtf8(bytes, pos);
    if (step.kind != Utf8Step::kCharacter) {
      out.append(bytes.substr(copied, pos - copied));
      out.append(kReplacementCharacter);
      copied = pos + step.bytes;
    }
    pos += step.bytes;
  }
  out.append(bytes.substr(copied));
}

size_t IncompleteUtf8Tail(std::string_view bytes) {
  for (size_t back = 1; back <= std::min<size_t>(3, bytes.size()); ++back) {
    const auto byte = static_cast<unsigned char>(bytes[bytes.size() - back]);
    if (byte >= 0x80 && byte < 0xC0) continue;
    const Utf8Step step = NextUtf8(bytes, bytes.size() - back);
    return step.kind == Utf8Step::kIncomplete ? back : 0;
  }
  return 0;
}

void AppendUtf8(int32_t c, std::string& out) {
  if (c < 0x80) {
    out.push_back(static_cast<char>(c));
    return;
  }
  if (c < 0x800) {
    out.push_back(static_cast<char>(0xC0 | (c >> 6)));
  } else if (c < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | (c >> 12)));
    out.push_back(static_cast<char>(0x80 | ((c >> 6) & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | (c >> 18)));
    out.push_back(static_cast<char>(0x80 | ((c >> 12) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | ((c >> 6) & 0x3F)));
  }
  out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
}

std::vector<int32_t> CodePoints(std::string_view text) {
  std::vector<int32_t> points;
  points.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Step step = NextUtf8(text, pos);
    points.push_back(step.code_point);
    pos += step.bytes;
  }
  return points;
}

}  // namespace bullpen
