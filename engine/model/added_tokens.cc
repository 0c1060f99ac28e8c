#include "engine/model/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "engine/model/utf8.h"
#include "engine/model/white_space.h"

namespace bullpen {
namespace {

bool IsWord(int32_t point) {
  switch (utf8proc_category(point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      // The joiners, and circled and squared letters.
      return point == 0x200C || point == 0x200D ||
             (point >= 0x24B6 && point <= 0x24E9) ||
             (point >= 0x1F130 && point <= 0x1F149) ||
             (point >= 0x1F150 && point <= 0x1F169) ||
             (point >= 0x1F170 && point <= 0x1F189);
  }
}

bool EndsWithWord(std::string_view text) {
  return !text.empty() &&
         IsWord(NextUtf8(text, LastCharacterStart(text)).code_point);
}

bool StartsWithWord(std::string_view text) {
  return !text.empty() && IsWord(NextUtf8(text, 0).code_point);
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher() : nodes_(1) {}

void AddedTokenMatcher::Add(const AddedToken& token, std::string_view content) {
  int32_t node = 0;
  for (char c : content) {
    const auto byte = static_cast<unsigned char>(c);
    int32_t child = Child(node, byte);
    if (child < 0) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_.push_back({.sibling = nodes_[node].first_child, .byte = byte});
      nodes_[node].first_child = child;
    }
    node = child;
  }
  starts_[static_cast<unsigned char>(content[0])] = true;
  nodes_[node].entry = static_cast<int32_t>(entries_.size());
  entries_.push_back({token.id, token.single_word, token.lstrip, token.rstrip});
}

int32_t AddedTokenMatcher::Child(int32_t node, unsigned char byte) const {
  int32_t child = nodes_[node].first_child;
  while (child >= 0 && nodes_[child].byte != byte)
    child = nodes_[child].sibling;
  return child;
}

const AddedTokenMatcher::Entry* AddedTokenMatcher::Longest(
    std::string_view text, size_t pos, size_t& length) const {
  const Entry* longest = nullptr;
  int32_t node = 0;
  for (size_t i = pos; i < text.size(); ++i) {
    node = Child(node, static_cast<unsigned char>(text[i]));
    if (node < 0) break;
    if (nodes_[node].entry < 0) continue;
    longest = &entries_[nodes_[node].entry];
    length = i + 1 - pos;
  }
  return longest;
}

void AddedTokenMatcher::Split(std::string_view text,
                              std::vector<Segment>& out) const {
  size_t done = 0;
  size_t pos = 0;
  size_t white_end = 0;  // of the last white space that a token took
  while (pos < text.size()) {
    if (!starts_[static_cast<unsigned char>(text[pos])]) {
      ++pos;
      continue;
    }
    size_t length = 0;
    const Entry* entry = Longest(text, pos, length);
    if (entry == nullptr) {
      ++pos;
      continue;
    }
    size_t begin = pos;
    size_t end = pos + length;
    pos = end;
    if (entry->single_word && (EndsWithWord(text.substr(0, begin)) ||
                               StartsWithWord(text.substr(end)))) {
      continue;
    }
    if (entry->lstrip) {
      begin = std::max(WhiteSpaceBefore(text, begin, done), done);
    }
    if (entry->rstrip) {
      if (end >= white_end) white_end = WhiteSpaceAfter(text, end);
      end = white_end;
    }
    // The token before has taken all of it as its white space.
    if (begin >= end) continue;
    if (done < begin) out.push_back({text.substr(done, begin - done)});
    out.push_back({text.substr(begin, end - begin), entry->id});
    // A token within the white space that the one before took gives back what
    // stands behind it, as in the reference.
    done = end;
  }
  if (done < text.size()) out.push_back({text.substr(done)});
}

}  // namespace bullpen
