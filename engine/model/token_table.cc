#include "engine/model/token_table.h"

#include <cctype>
#include <optional>
#include <utility>

#include "base/strings.h"
#include "engine/model/byte_alphabet.h"
#include "engine/model/utf8.h"

namespace bullpen {
namespace {

// "<0x41>" -> 0x41.
std::optional<char> NamedByte(std::string_view spelling) {
  if (spelling.size() != 6 || !spelling.starts_with("<0x") ||
      spelling.back() != '>') {
    return std::nullopt;
  }
  int value = 0;
  for (char c : spelling.substr(3, 2)) {
    if (!std::isxdigit(static_cast<unsigned char>(c))) return std::nullopt;
    const int digit =
        c <= '9' ? c - '0'
                 : std::tolower(static_cast<unsigned char>(c)) - 'a' + 10;
    value = value * 16 + digit;
  }
  return static_cast<char>(value);
}

std::string Replaced(std::string_view text, std::string_view pattern,
                     std::string_view content) {
  std::string out;
  for (size_t pos = 0;;) {
    const size_t hit = text.find(pattern, pos);
    out.append(text.substr(pos, hit - pos));
    if (hit == std::string_view::npos) return out;
    out.append(content);
    pos = hit + pattern.size();
  }
}

}  // namespace

TokenTable::TokenTable(DecodeSteps steps, int32_t size)
    : steps_(std::move(steps)), tokens_(static_cast<size_t>(size)) {}

void TokenTable::Set(int32_t id, std::string_view spelling, bool special) {
  Token& token = tokens_[static_cast<size_t>(id)];
  token = {.bytes = std::string(spelling), .known = true, .special = special};
  if (steps_.byte_level) {
    // A spelling outside of the alphabet stands for itself.
    if (auto bytes = ByteAlphabet::Get().Bytes(spelling)) token.bytes = *bytes;
    return;
  }
  if (!steps_.removed_in_first.empty()) SetFirstForm(id, spelling);
  for (const auto& [pattern, content] : steps_.replace) {
    if (token.bytes.find(pattern) == std::string::npos) continue;
    token.bytes = Replaced(token.bytes, pattern, content);
  }
  if (!steps_.byte_fallback) return;
  if (const std::optional<char> byte = NamedByte(token.bytes)) {
    token.bytes.assign(1, *byte);
    token.is_byte = true;
  }
}

void TokenTable::SetFirstForm(int32_t id, std::string_view spelling) {
  using Removal = DecodeSteps::Removal;
  const std::string_view removed = steps_.removed_in_first;
  std::string rest;
  if (steps_.removal == Removal::kEverywhere) {
    rest = Replaced(spelling, removed, "");
  } else {
    size_t begin = 0;
    while (spelling.substr(begin).starts_with(removed)) {
      begin += removed.size();
      if (steps_.removal == Removal::kOnce) break;
    }
    rest = spelling.substr(begin);
  }
  if (rest.size() == spelling.size()) return;
  for (const auto& [pattern, content] : steps_.replace) {
    rest = Replaced(rest, pattern, content);
  }
  first_forms_[id] = std::move(rest);
}

void TokenTable::MarkSpecial(int32_t id) {
  tokens_[static_cast<size_t>(id)].special = true;
}

bool TokenTable::Contains(int32_t id) const {
  return id >= 0 && id < size() && tokens_[static_cast<size_t>(id)].known;
}

bool TokenTable::IsSpecial(int32_t id) const {
  return Contains(id) && tokens_[static_cast<size_t>(id)].special;
}

bool TokenTable::IsByte(int32_t id) const {
  return Contains(id) && tokens_[static_cast<size_t>(id)].is_byte;
}

std::string_view TokenTable::Bytes(int32_t id) const {
  if (!Contains(id)) return {};
  return tokens_[static_cast<size_t>(id)].bytes;
}

std::string_view TokenTable::FirstBytes(int32_t id, bool& first) const {
  const auto it = first_forms_.find(id);
  const std::string_view bytes =
      it == first_forms_.end() ? Bytes(id) : it->second;
  first = bytes.empty() && steps_.removal == DecodeSteps::Removal::kLeading;
  return bytes;
}

void TokenTable::AppendBytes(std::string_view bytes, std::string& out) const {
  if (!steps_.byte_fallback || IsValidUtf8(bytes)) {
    AppendLossyUtf8(bytes, out);
    return;
  }
  for (size_t pos = 0; pos < bytes.size();) {
    const Utf8Step step = NextUtf8(bytes, pos);
    if (steps_.bytes_stand_alone && step.kind == Utf8Step::kCharacter) {
      out.append(bytes.substr(pos, step.bytes));
      pos += step.bytes;
    } else {
      out.append(kReplacementCharacter);
      ++pos;
    }
  }
}

std::string TokenTable::Decode(std::span<const int32_t> ids,
                               bool skip_special) const {
  std::string out;
  std::string run;  // bytes that must be judged together
  bool first = true;
  for (int32_t id : ids) {
    if (!Contains(id) || (skip_special && IsSpecial(id))) continue;
    if (!first) out.append(steps_.separator);
    const std::string_view bytes = first ? FirstBytes(id, first) : Bytes(id);
    if (steps_.byte_level || IsByte(id)) {
      run.append(bytes);
      continue;
    }
    AppendBytes(run, out);
    run.clear();
    out.append(bytes);
  }
  AppendBytes(run, out);
  size_t start = 0;
  for (int32_t i = 0; i < steps_.strip_count; ++i) {
    if (std::string_view(out).substr(start).starts_with(steps_.strip)) {
      start += steps_.strip.size();
    }
  }
  return start == 0 ? out : out.substr(start);
}

}  // namespace bullpen
