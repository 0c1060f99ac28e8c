#include "engine/model/pretokenizer_json.h"

#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "engine/model/json_fields.h"
#include "engine/model/tokenizer_part.h"

namespace bullpen {
namespace {

using nlohmann::json;

constexpr std::string_view kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
    "\\s+(?!\\S)|\\s+";

// Unicode's punctuation as of version 8, which is what the reference knows, and
// what else is none of letters, digits and blanks in ASCII.
constexpr std::string_view kPunctuation =
    "[\\p{P}$+<=>^`|~\\x{166D}\\x{111C9}&&[^"
    "\\x{61D}\\x{9FD}\\x{A76}\\x{C77}\\x{C84}\\x{1B7D}-\\x{1B7E}"
    "\\x{2E43}-\\x{2E4F}\\x{2E52}-\\x{2E5D}\\x{10EAD}\\x{10F55}-\\x{10F59}"
    "\\x{10F86}-\\x{10F89}\\x{1144B}-\\x{1144F}"
    "\\x{1145A}-\\x{1145B}\\x{1145D}\\x{11660}-\\x{1166C}\\x{116B9}\\x{1183B}"
    "\\x{11944}-\\x{11946}\\x{119E2}\\x{11A3F}-\\x{11A46}"
    "\\x{11A9A}-\\x{11A9C}\\x{11A9E}-\\x{11AA2}\\x{11C41}-\\x{11C45}"
    "\\x{11C70}-\\x{11C71}\\x{11EF7}-\\x{11EF8}\\x{11FFF}"
    "\\x{12FF1}-\\x{12FF2}\\x{16E97}-\\x{16E9A}\\x{16FE2}"
    "\\x{1E95E}-\\x{1E95F}"
    "]]";

absl::StatusOr<SplitBehavior> ParseBehavior(const JsonFields& part) {
  ASSIGN_OR_RETURN(const std::string name, part.String("behavior", "Isolated"));
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return part.Error("behavior",
                    absl::StrCat("'", name,
                                 "' is none of Removed, Isolated, "
                                 "MergedWithPrevious, MergedWithNext, "
                                 "Contiguous"));
}

// Collects the steps of a pre-tokenizer and whether it ends in bytes.
class PreTokenizerReader {
 public:
  explicit PreTokenizerReader(TokenizerParts& parts) : parts_(parts) {}

  absl::Status Read(const json& node, const std::string& path, int depth) {
    ASSIGN_OR_RETURN(const JsonFields part, JsonFields::Of(node, path));
    ASSIGN_OR_RETURN(const std::string type, part.String("type", ""));
    if (parts_.bpe.byte_level) {
      return part.Error("type", absl::StrCat("'", type,
                                             "' after ByteLevel is not "
                                             "supported; it must come last"));
    }
    if (type == "Sequence") return ReadSequence(part, depth);
    if (type == "Split") return ReadSplit(part);
    if (type == "ByteLevel") return ReadByteLevel(part);
    if (type == "Digits") {
      ASSIGN_OR_RETURN(const bool single,
                       part.Bool("individual_digits", false));
      return AddRegex(single ? "\\p{N}" : "\\p{N}+", {});
    }
    if (type == "Punctuation") {
      SplitPattern::Options options;
      ASSIGN_OR_RETURN(options.behavior, ParseBehavior(part));
      return AddRegex(kPunctuation, options);
    }
    if (type == "WhitespaceSplit") {
      return AddRegex("\\s+", {.behavior = SplitBehavior::kRemoved});
    }
    if (type == "Whitespace") {
      // Its \w has the joiners, but not the numbers of Latin-1 that Oniguruma's
      // has.
      return AddRegex(
          "[\\w\u200C\u200D&&[^\u00B2\u00B3\u00B9\u00BC-\u00BE]]+|"
          "[[^\\w\\s\u200C\u200D]\u00B2\u00B3\u00B9\u00BC-\u00BE]+",
          {.behavior = SplitBehavior::kRemoved, .invert = true});
    }
    if (type == "BertPreTokenizer") {
      RETURN_IF_ERROR(AddRegex("\\s+", {.behavior = SplitBehavior::kRemoved}));
      return AddRegex(kPunctuation, {});
    }
    if (type == "CharDelimiterSplit") return ReadDelimiter(part);
    if (type == "Metaspace") return ReadMetaspace(part);
    return UnsupportedPart(
        part, type,
        "BertPreTokenizer, ByteLevel, CharDelimiterSplit, Digits, Metaspace, "
        "Punctuation, Sequence, Split, Whitespace, WhitespaceSplit");
  }

 private:
  absl::Status ReadSequence(const JsonFields& part, int depth) {
    if (depth == kMaxPartDepth) return part.Error("type", "nested too deeply");
    ASSIGN_OR_RETURN(const json* steps, part.Array("pretokenizers"));
    for (size_t i = 0; i < steps->size(); ++i) {
      RETURN_IF_ERROR(Read((*steps)[i],
                           absl::StrCat(part.path(), ".pretokenizers[", i, "]"),
                           depth + 1));
    }
    return absl::OkStatus();
  }

  absl::Status ReadSplit(const JsonFields& part) {
    ASSIGN_OR_RETURN(const PartPattern pattern, ParsePartPattern(part));
    SplitPattern::Options options;
    ASSIGN_OR_RETURN(options.behavior, ParseBehavior(part));
    ASSIGN_OR_RETURN(options.invert, part.Bool("invert", false));
    if (pattern.is_regex) return AddRegex(pattern.text, options);
    parts_.pretokenizer.Add(SplitPattern::Literal(pattern.text, options));
    return absl::OkStatus();
  }

  absl::Status ReadDelimiter(const JsonFields& part) {
    ASSIGN_OR_RETURN(const std::string delimiter, part.String("delimiter", ""));
    if (delimiter.empty()) return part.Error("delimiter", "is missing");
    parts_.pretokenizer.Add(SplitPattern::Literal(
        delimiter, {.behavior = SplitBehavior::kRemoved}));
    return absl::OkStatus();
  }

  absl::Status ReadMetaspace(const JsonFields& part) {
    using Prepend = PreTokenizer::Metaspace::Prepend;
    PreTokenizer::Metaspace step;
    ASSIGN_OR_RETURN(step.replacement,
                     part.String("replacement", step.replacement));
    ASSIGN_OR_RETURN(step.split, part.Bool("split", true));
    // The field that older files have.
    ASSIGN_OR_RETURN(const bool prefix, part.Bool("add_prefix_space", true));
    ASSIGN_OR_RETURN(
        const std::string scheme,
        part.String("prepend_scheme", prefix ? "always" : "never"));
    if (scheme != "always" && scheme != "first" && scheme != "never") {
      return part.Error(
          "prepend_scheme",
          absl::StrCat("'", scheme, "' is none of always, first, never"));
    }
    step.prepend = scheme == "always"  ? Prepend::kAlways
                   : scheme == "first" ? Prepend::kFirst
                                       : Prepend::kNever;
    if (step.replacement.empty()) return part.Error("replacement", "is empty");
    parts_.pretokenizer.Add(std::move(step));
    return absl::OkStatus();
  }

  absl::Status ReadByteLevel(const JsonFields& part) {
    ASSIGN_OR_RETURN(const bool prefix, part.Bool("add_prefix_space", true));
    ASSIGN_OR_RETURN(const bool split, part.Bool("use_regex", true));
    if (prefix) parts_.pretokenizer.Add(PreTokenizer::PrefixSpace{});
    if (split) RETURN_IF_ERROR(AddRegex(kGpt2Pattern, {}));
    parts_.bpe.byte_level = true;
    return absl::OkStatus();
  }

  absl::Status AddRegex(std::string_view expression,
                        SplitPattern::Options options) {
    ASSIGN_OR_RETURN(SplitPattern pattern,
                     SplitPattern::Regex(expression, options));
    parts_.pretokenizer.Add(std::move(pattern));
    return absl::OkStatus();
  }

  TokenizerParts& parts_;
};

}  // namespace

absl::Status ParsePreTokenizer(const json& node, TokenizerParts& out) {
  return PreTokenizerReader(out).Read(node, "pre_tokenizer", 0);
}

}  // namespace bullpen
