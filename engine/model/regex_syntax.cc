#include "engine/model/regex_syntax.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "base/status.h"
#include "base/strings.h"

namespace bullpen {
namespace {

// PCRE2's own \s also holds U+180E, which is no white space since Unicode 6.3;
// its \w lacks marks and connectors; \h means a hex digit to Oniguruma.
constexpr std::string_view kSpace = "\\x09-\\x0D\\x{85}\\p{Z}";
constexpr std::string_view kWord =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}";
constexpr std::string_view kHex = "0-9A-Fa-f";

class Translator {
 public:
  explicit Translator(std::string_view in) : in_(in) {}

  absl::StatusOr<std::string> Run() {
    while (pos_ < in_.size()) {
      if (in_[pos_] == '\\') {
        RETURN_IF_ERROR(Escape());
      } else if (in_class_) {
        RETURN_IF_ERROR(InClass());
      } else {
        Outside();
      }
    }
    return std::move(out_);
  }

 private:
  absl::Status Unsupported(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("regular expression '",
                                                   Absl(in_), "': ", Absl(what),
                                                   " is not supported"));
  }

  void Take(size_t count) {
    out_.append(in_.substr(pos_, count));
    pos_ += count;
  }

  void Outside() {
    if (in_[pos_] != '[') return Take(1);
    in_class_ = true;
    Take(1);
    if (pos_ < in_.size() && in_[pos_] == '^') Take(1);
    // A bracket that comes first is a member.
    if (pos_ < in_.size() && in_[pos_] == ']') Take(1);
  }

  absl::Status InClass() {
    if (in_[pos_] == ']') in_class_ = false;
    if (in_.substr(pos_, 2) == "&&") {
      return Unsupported("intersection of character classes (&&)");
    }
    if (in_[pos_] == '[') {
      const size_t end = in_.find(":]", pos_);
      if (in_.substr(pos_, 2) != "[:" || end == std::string_view::npos) {
        return Unsupported("a character class inside another");
      }
      Take(end + 2 - pos_);
      return absl::OkStatus();
    }
    Take(1);
    return absl::OkStatus();
  }

  // A shorthand such as \s: its members, in brackets outside of a class.
  absl::Status Shorthand(std::string_view members, bool negated) {
    if (in_class_ && negated) {
      return Unsupported("a negated shorthand inside a character class");
    }
    pos_ += 2;
    if (!in_class_) out_.append(negated ? "[^" : "[");
    out_.append(members);
    if (!in_class_) out_.push_back(']');
    return absl::OkStatus();
  }

  absl::Status Escape() {
    if (pos_ + 1 == in_.size()) return Unsupported("a trailing backslash");
    switch (in_[pos_ + 1]) {
      case 's':
        return Shorthand(kSpace, false);
      case 'S':
        if (!in_class_) return Shorthand(kSpace, true);
        break;
      case 'w':
        return Shorthand(kWord, false);
      case 'W':
        return Shorthand(kWord, true);
      case 'h':
        return Shorthand(kHex, false);
      case 'H':
        return Shorthand(kHex, true);
      case 'u':
        return CodePoint();
      default:
        break;
    }
    Take(2);
    return absl::OkStatus();
  }

  // \uHHHH
  absl::Status CodePoint() {
    const std::string_view digits = in_.substr(pos_ + 2, 4);
    const bool hex = std::all_of(digits.begin(), digits.end(), [](char c) {
      return std::isxdigit(static_cast<unsigned char>(c)) != 0;
    });
    if (digits.size() != 4 || !hex) return Unsupported("\\u");
    out_.append("\\x{").append(digits).append("}");
    pos_ += 6;
    return absl::OkStatus();
  }

  std::string_view in_;
  size_t pos_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> TranslateRegex(std::string_view expression) {
  return Translator(expression).Run();
}

}  // namespace bullpen
