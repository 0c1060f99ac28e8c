#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bullpen {

// A token that is found in text before the text is split into words.
struct AddedToken {
  enum class Where {
    kText,        // as it was given
    kNormalized,  // in normalised text, the token normalised too
    kPieces,      // in normalised text, the token as it is
  };
  int32_t id = 0;
  std::string content;
  bool special = false;  // left out of decoded text on request
  Where where = Where::kText;
  bool single_word = false;  // only between non-word characters
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and after it
};

// Finds a set of added tokens: the leftmost match, the longest of those.
// Immutable after the last Add: any thread may use it.
class AddedTokenMatcher {
 public:
  struct Segment {
    std::string_view text;
    int32_t id = -1;  // -1: ordinary text
  };

  AddedTokenMatcher();

  // Looks for `content` (not empty), which may differ from token.content.
  void Add(const AddedToken& token, std::string_view content);

  // Appends what `text` falls into, in order; no empty segments of text.
  void Split(std::string_view text, std::vector<Segment>& out) const;

 private:
  struct Entry {
    int32_t id;
    bool single_word;
    bool lstrip;
    bool rstrip;
  };
  struct Node {
    int32_t first_child = -1;
    int32_t sibling = -1;
    int32_t entry = -1;
    unsigned char byte = 0;
  };

  int32_t Child(int32_t node, unsigned char byte) const;
  // The longest token at `pos` and its length, or null.
  const Entry* Longest(std::string_view text, size_t pos, size_t& length) const;

  std::vector<Entry> entries_;
  std::vector<Node> nodes_;  // a trie; siblings are linked
  bool starts_[256] = {};
};

}  // namespace bullpen
