#include "engine/model/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "engine/model/regex_syntax.h"
#include "engine/model/unicode_version.h"
#include "engine/model/utf8.h"

namespace bullpen {
namespace {

struct Deleter {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_compile_context* p) const {
    pcre2_compile_context_free(p);
  }
};
template <typename T>
using Owned = std::unique_ptr<T, Deleter>;

constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kDepthLimit = 100'000;
constexpr uint32_t kHeapLimitKib = 64 * 1024;

struct Match {
  size_t begin = 0;
  size_t end = 0;
};

// What one caller's search works with.
struct Search {
  Owned<pcre2_match_data> data;
  bool exhausted = false;  // the expression has once gone over its limits
};

}  // namespace

struct SplitPattern::Code {
  Options options;
  std::string literal;  // used where `regex` is null
  Owned<pcre2_code> regex;
  Owned<pcre2_match_context> limits;

  // The next match at or after `from`; it may be empty.
  bool Next(std::string_view text, size_t from, Search& search,
            Match& match) const {
    if (regex == nullptr) {
      match.begin = text.find(literal, from);
      match.end = match.begin + literal.size();
      return match.begin != std::string_view::npos;
    }
    if (search.exhausted) return false;
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    pcre2_match_data* data = search.data.get();
    int found = pcre2_match(regex.get(), subject, text.size(), from,
                            PCRE2_NO_UTF_CHECK, data, limits.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      // The interpreter keeps its state on the heap.
      found =
          pcre2_match(regex.get(), subject, text.size(), from,
                      PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, limits.get());
    }
    if (found < 0) {
      search.exhausted = found != PCRE2_ERROR_NOMATCH;
      return false;
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data);
    match = {ends[0], ends[1]};
    return true;
  }

  // The next match, but none that is empty at `from` or at the end.
  bool Find(std::string_view text, size_t from, Search& search,
            Match& match) const {
    const size_t last_end = from;
    while (from < text.size() && Next(text, from, search, match)) {
      if (match.end > match.begin) return true;
      if (match.begin >= text.size()) return false;
      if (match.begin > last_end) return true;
      from = match.begin + NextUtf8(text, match.begin).bytes;
    }
    return false;
  }

  Search NewSearch() const {
    Search search;
    if (regex != nullptr) {
      search.data.reset(pcre2_match_data_create(1, nullptr));
    }
    return search;
  }

  void Split(std::string_view text, Search& search,
             std::vector<std::string_view>& out) const;
};

namespace {

// Joins the alternating segments of one text as the behaviour says. An empty
// one is a cut.
class Joiner {
 public:
  Joiner(SplitPattern::Options options, std::vector<std::string_view>& out)
      : options_(options), out_(out) {}

  void Add(std::string_view segment, bool is_match) {
    if (segment.empty()) {
      started_ = false;
      return;
    }
    is_match = is_match != options_.invert;
    if (options_.behavior == SplitBehavior::kRemoved && is_match) return;
    if (Joins(is_match)) {
      out_.back() = {out_.back().data(), out_.back().size() + segment.size()};
    } else {
      out_.push_back(segment);
    }
    started_ = true;
    last_was_match_ = is_match;
  }

 private:
  bool Joins(bool is_match) const {
    if (!started_) return false;
    switch (options_.behavior) {
      case SplitBehavior::kMergedWithPrevious:
        return is_match && !last_was_match_;
      case SplitBehavior::kMergedWithNext:
        return !is_match && last_was_match_;
      case SplitBehavior::kContiguous:
        return is_match == last_was_match_;
      default:
        return false;
    }
  }

  SplitPattern::Options options_;
  std::vector<std::string_view>& out_;
  bool started_ = false;
  bool last_was_match_ = false;
};

absl::Status CompileError(std::string_view expression, int code) {
  PCRE2_UCHAR message[256] = {};
  pcre2_get_error_message(code, message, sizeof(message));
  return absl::InvalidArgumentError(
      absl::StrCat("regular expression '", Absl(expression),
                   "': ", reinterpret_cast<const char*>(message)));
}

}  // namespace

void SplitPattern::Code::Split(std::string_view text, Search& search,
                               std::vector<std::string_view>& out) const {
  Joiner joiner(options, out);
  std::string storage;
  const std::string_view subject =
      regex == nullptr ? text : WithOlderCharacters(text, storage);
  size_t done = 0;
  Match match;
  while (done < text.size() && Find(subject, done, search, match)) {
    if (done < match.begin) {
      joiner.Add(text.substr(done, match.begin - done), false);
    }
    joiner.Add(text.substr(match.begin, match.end - match.begin), true);
    done = match.end;
  }
  joiner.Add(text.substr(done), false);
}

SplitPattern::SplitPattern() : code_(std::make_unique<Code>()) {}
SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;
SplitPattern& SplitPattern::operator=(SplitPattern&&) noexcept = default;
SplitPattern::~SplitPattern() = default;

absl::StatusOr<SplitPattern> SplitPattern::Regex(std::string_view expression,
                                                 Options options) {
  ASSIGN_OR_RETURN(const std::string translated, TranslateRegex(expression));
  const Owned<pcre2_compile_context> context(
      pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  SplitPattern pattern;
  pattern.code_->options = options;
  pattern.code_->regex.reset(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
      &offset, context.get()));
  if (pattern.code_->regex == nullptr) return CompileError(expression, error);
  // Where the machine has no JIT, pcre2_match interprets.
  pcre2_jit_compile(pattern.code_->regex.get(), PCRE2_JIT_COMPLETE);
  pattern.code_->limits.reset(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(pattern.code_->limits.get(), kMatchLimit);
  pcre2_set_depth_limit(pattern.code_->limits.get(), kDepthLimit);
  pcre2_set_heap_limit(pattern.code_->limits.get(), kHeapLimitKib);
  return pattern;
}

SplitPattern SplitPattern::Literal(std::string_view literal, Options options) {
  SplitPattern pattern;
  pattern.code_->options = options;
  pattern.code_->literal = literal;
  return pattern;
}

std::string SplitPattern::Replace(std::string_view text,
                                  std::string_view content) const {
  Search search = code_->NewSearch();
  std::string storage;
  const std::string_view subject =
      code_->regex == nullptr ? text : WithOlderCharacters(text, storage);
  std::string out;
  size_t done = 0;
  Match match;
  for (size_t from = 0;
       from <= text.size() && code_->Next(subject, from, search, match);) {
    const bool empty = match.end == match.begin;
    // A match that is empty where the last one ended is none.
    if (!empty || match.begin > done || from == 0) {
      out.append(text.substr(done, match.begin - done)).append(content);
      done = match.end;
    }
    from = match.end;
    if (!empty) continue;
    if (from == text.size()) break;
    from += NextUtf8(text, from).bytes;
  }
  return out.append(text.substr(done));
}

void SplitPattern::Split(std::span<const std::string_view> texts,
                         std::vector<std::string_view>& out) const {
  Search search = code_->NewSearch();
  for (std::string_view text : texts) code_->Split(text, search, out);
}

}  // namespace bullpen
