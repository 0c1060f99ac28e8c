#include "engine/model/regex_syntax.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cctype>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/strings.h"
#include "engine/model/utf8.h"

namespace bullpen {
namespace {

// PCRE2's own \s also holds U+180E, which is no white space since Unicode 6.3;
// its \w lacks marks and connectors; \h means a hex digit to Oniguruma, whose
// \w has the superscripts and fractions of Latin-1, but no others.
constexpr std::string_view kSpace = "\\x09-\\x0D\\x{85}\\p{Z}";
constexpr std::string_view kWord =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"
    "\\x{24B6}-\\x{24E9}"
    "\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}";
constexpr std::string_view kHex = "0-9A-Fa-f";
constexpr std::string_view kAnyCharacter = "[\\x{0}-\\x{10FFFF}]";

// Classes within classes; more is an attempt on the stack.
constexpr int kMaxClassDepth = 16;

// General categories by the names that PCRE2 does not know.
constexpr std::pair<std::string_view, std::string_view> kCategoryNames[] = {
    {"letter", "L"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"casedletter", "L&"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"punct", "P"},
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"openpunctuation", "Ps"},
    {"closepunctuation", "Pe"},
    {"initialpunctuation", "Pi"},
    {"finalpunctuation", "Pf"},
    {"otherpunctuation", "Po"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},
    {"paragraphseparator", "Zp"},
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"surrogate", "Cs"},
    {"privateuse", "Co"},
    {"unassigned", "Cn"},
};

// What \s, \w or \h stand for, "" for anything else.
std::string_view ShorthandMembers(char lower) {
  switch (lower) {
    case 's':
      return kSpace;
    case 'w':
      return kWord;
    case 'h':
      return kHex;
    default:
      return {};
  }
}

bool Compiles(const std::string& expression) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* const code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()),
                    expression.size(), PCRE2_UTF, &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

// The members that stand between && in a character class.
struct Operand {
  std::string members;                // as in PCRE2's brackets
  std::vector<std::string> patterns;  // that match one character each

  std::string Pattern() const {
    const std::string brackets =
        members.empty() ? std::string() : absl::StrCat("[", members, "]");
    if (patterns.empty()) return brackets;
    std::string alternatives = absl::StrCat("(?:", brackets);
    for (const std::string& pattern : patterns) {
      if (alternatives.size() > 3) alternatives += '|';
      alternatives += pattern;
    }
    return absl::StrCat(alternatives, ")");
  }
};

class Translator {
 public:
  explicit Translator(std::string_view in) : in_(in) {}

  absl::StatusOr<std::string> Run() {
    while (pos_ < in_.size()) {
      RETURN_IF_ERROR(Next());
    }
    return std::move(out_);
  }

 private:
  absl::Status Unsupported(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("regular expression '",
                                                   Absl(in_), "': ", Absl(what),
                                                   " is not supported"));
  }

  bool At(std::string_view text) const {
    return in_.substr(pos_).starts_with(text);
  }
  std::string_view Take(size_t count) {
    const std::string_view taken = in_.substr(pos_, count);
    pos_ += taken.size();
    return taken;
  }

  absl::Status Next() {
    const char c = in_[pos_];
    if (c == '(') return Open();
    if (c == '{') return Interval();
    if (c == '*' || c == '+' || c == '?' || c == '|') {
      out_.append(Take(1));
      return absl::OkStatus();
    }
    if (c == ')') {
      out_.append(Take(1));
      if (groups_.empty()) return absl::OkStatus();  // PCRE2 says what is wrong
      atom_ = groups_.back();
      groups_.pop_back();
      return absl::OkStatus();
    }
    atom_ = out_.size();
    if (c == '[') {
      ASSIGN_OR_RETURN(const std::string pattern, Class(0));
      out_.append(pattern);
    } else if (At("\\b") || At("\\B")) {
      out_.append(WordBoundary(Take(2)[1] == 'b'));
    } else if (c == '\\') {
      ASSIGN_OR_RETURN(const std::string pattern, Escape());
      out_.append(pattern);
    } else {
      out_.append(Take(NextUtf8(in_, pos_).bytes));
    }
    return absl::OkStatus();
  }

  // What Ruby calls multi-line, Perl calls single-line.
  absl::Status Open() {
    groups_.push_back(out_.size());
    if (!At("(?")) {
      out_.append(Take(1));
      return absl::OkStatus();
    }
    out_.append(Take(2));
    while (pos_ < in_.size() && (At("i") || At("m") || At("x") || At("-"))) {
      out_.append(At("m") ? "s" : in_.substr(pos_, 1));
      Take(1);
    }
    return absl::OkStatus();
  }

  // {n,m}+ repeats the interval; to PCRE2 it would be possessive. {,m} begins
  // at zero.
  absl::Status Interval() {
    const size_t close = in_.find('}', pos_);
    const std::string_view inside = in_.substr(
        pos_ + 1, close == std::string_view::npos ? 0 : close - pos_ - 1);
    const bool numbers =
        !inside.empty() && inside != "," &&
        std::count(inside.begin(), inside.end(), ',') <= 1 &&
        std::all_of(inside.begin(), inside.end(), [](char c) {
          return c == ',' || std::isdigit(static_cast<unsigned char>(c)) != 0;
        });
    if (!numbers) {
      atom_ = out_.size();
      out_.append("\\{");
      Take(1);
      return absl::OkStatus();
    }
    out_.append(inside[0] == ',' ? "{0" : "{").append(inside).append("}");
    pos_ = close + 1;
    if (At("+")) {
      out_.insert(atom_, "(?:");
      out_.push_back(')');
    }
    return absl::OkStatus();
  }

  // At '['. The pattern matches one character.
  absl::StatusOr<std::string> Class(int depth) {
    if (depth == kMaxClassDepth) {
      return Unsupported("so deep a nest of character classes");
    }
    Take(1);
    const bool negated = At("^");
    if (negated) Take(1);
    std::vector<Operand> operands(1);
    // A bracket that comes first is a member.
    if (At("]")) {
      operands.back().members.append("\\]");
      Take(1);
    }
    while (!At("]")) {
      if (pos_ == in_.size()) return Unsupported("a class without its end");
      if (At("&&")) {
        Take(2);
        operands.emplace_back();
        continue;
      }
      RETURN_IF_ERROR(Member(depth, operands.back()));
    }
    Take(1);
    return Combined(operands, negated);
  }

  absl::Status Member(int depth, Operand& operand) {
    if (At("[:")) {
      const size_t end = in_.find(":]", pos_);
      if (end != std::string_view::npos) {
        operand.members.append(Take(end + 2 - pos_));
        return absl::OkStatus();
      }
    }
    if (At("[")) {
      ASSIGN_OR_RETURN(operand.patterns.emplace_back(), Class(depth + 1));
      return absl::OkStatus();
    }
    if (!At("\\")) {
      operand.members.append(Take(NextUtf8(in_, pos_).bytes));
      return absl::OkStatus();
    }
    if (pos_ + 1 < in_.size()) {
      const char c = in_[pos_ + 1];
      const std::string_view members =
          ShorthandMembers(static_cast<char>(std::tolower(c)));
      if (!members.empty()) {
        Take(2);
        if (c >= 'a') {
          operand.members.append(members);
        } else {
          operand.patterns.push_back(absl::StrCat("[^", Absl(members), "]"));
        }
        return absl::OkStatus();
      }
    }
    ASSIGN_OR_RETURN(const std::string member, Escape());
    operand.members.append(member);
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Combined(const std::vector<Operand>& operands,
                                       bool negated) const {
    const Operand& last = operands.back();
    for (const Operand& operand : operands) {
      if (operand.members.empty() && operand.patterns.empty()) {
        return Unsupported("an empty character class");
      }
    }
    if (operands.size() == 1 && last.patterns.empty()) {
      return absl::StrCat(negated ? "[^" : "[", last.members, "]");
    }
    std::string all;
    for (size_t i = 0; i + 1 < operands.size(); ++i) {
      absl::StrAppend(&all, "(?=", operands[i].Pattern(), ")");
    }
    all += last.Pattern();
    if (!negated) return absl::StrCat("(?:", all, ")");
    return absl::StrCat("(?:(?!", all, ")", Absl(kAnyCharacter), ")");
  }

  // At a backslash; outside of a class, or where none of its shorthands is.
  absl::StatusOr<std::string> Escape() {
    if (pos_ + 1 == in_.size()) return Unsupported("a trailing backslash");
    const char c = in_[pos_ + 1];
    const std::string_view members =
        ShorthandMembers(static_cast<char>(std::tolower(c)));
    if (!members.empty()) {
      Take(2);
      return absl::StrCat(c >= 'a' ? "[" : "[^", Absl(members), "]");
    }
    if (c == 'u') return CodePoint();
    if ((c == 'p' || c == 'P') && in_.substr(pos_ + 2).starts_with('{')) {
      return Property();
    }
    Take(1);
    return absl::StrCat("\\", Absl(Take(NextUtf8(in_, pos_).bytes)));
  }

  // Between a character of \w, as it is here, and another or none.
  static std::string WordBoundary(bool wanted) {
    const std::string word = absl::StrCat("[", Absl(kWord), "]");
    const std::string cut = absl::StrCat("(?<=", word, ")(?!", word, ")|(?<!",
                                         word, ")(?=", word, ")");
    return absl::StrCat(wanted ? "(?:" : "(?!", cut, ")");
  }

  // \p{Name}, \p{^Name}
  absl::StatusOr<std::string> Property() {
    const size_t end = in_.find('}', pos_);
    if (end == std::string_view::npos)
      return Unsupported("\\p without its end");
    std::string whole(Take(end + 1 - pos_));
    const size_t start = whole[3] == '^' ? 4 : 3;
    std::string name;
    for (const char c : whole.substr(start, whole.size() - 1 - start)) {
      if (c == '_' || c == ' ' || c == '-') continue;
      name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    for (const auto& [category, code] : kCategoryNames) {
      if (name != category) continue;
      return whole.substr(0, start).append(code).append("}");
    }
    // PCRE2 takes the name of a script for its extensions too.
    const std::string script =
        absl::StrCat(whole.substr(0, start), "sc:", whole.substr(start));
    return Compiles(script) ? script : whole;
  }

  // \uHHHH
  absl::StatusOr<std::string> CodePoint() {
    const std::string_view digits = in_.substr(pos_ + 2, 4);
    const bool hex = std::all_of(digits.begin(), digits.end(), [](char c) {
      return std::isxdigit(static_cast<unsigned char>(c)) != 0;
    });
    if (digits.size() != 4 || !hex) return Unsupported("\\u");
    Take(6);
    return absl::StrCat("\\x{", Absl(digits), "}");
  }

  std::string_view in_;
  size_t pos_ = 0;
  std::string out_;
  size_t atom_ = 0;             // where in out_ a quantifier's subject begins
  std::vector<size_t> groups_;  // where those begin that are open
};

}  // namespace

absl::StatusOr<std::string> TranslateRegex(std::string_view expression) {
  return Translator(expression).Run();
}

}  // namespace bullpen
