#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bullpen {

// What to do with the matches of a split pattern; the names of tokenizer.json.
enum class SplitBehavior {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,
};

// A regular expression or literal that cuts text into pieces. Expressions are
// written for Oniguruma (Ruby syntax), as tokenizer.json has them, and are
// translated to PCRE2. Immutable: any thread may use it.
class SplitPattern {
 public:
  struct Options {
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;  // what lies between the matches counts as match
  };

  // InvalidArgument: the expression does not compile or uses a construct that
  // has no translation; the message quotes it.
  static absl::StatusOr<SplitPattern> Regex(std::string_view expression,
                                            Options options);
  // literal: not empty.
  static SplitPattern Literal(std::string_view literal, Options options);

  SplitPattern(SplitPattern&&) noexcept;
  SplitPattern& operator=(SplitPattern&&) noexcept;
  ~SplitPattern();

  // `text` (not empty) with `content` in place of each match, also where an
  // empty one does not follow another directly.
  std::string Replace(std::string_view text, std::string_view content) const;

  // Appends the pieces of each text (valid UTF-8), none empty. From where an
  // expression exceeds the match limit, what is left of each is one piece.
  void Split(std::span<const std::string_view> texts,
             std::vector<std::string_view>& out) const;

 private:
  struct Code;
  SplitPattern();
  std::unique_ptr<Code> code_;
};

}  // namespace bullpen
