#include "engine/model/tokenizer_json.h"

#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "engine/model/json_fields.h"

namespace bullpen {
namespace {

using nlohmann::json;

// Sequences within sequences; more is an attempt on the stack.
constexpr int kMaxDepth = 8;

constexpr std::string_view kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
    "\\s+(?!\\S)|\\s+";

absl::Status Unsupported(const JsonFields& part, std::string_view type,
                         std::string_view supported) {
  return part.Error("type", absl::StrCat("'", Absl(type),
                                         "' is not supported; supported are ",
                                         Absl(supported)));
}

absl::StatusOr<AddedToken> ParseAddedToken(const json& node,
                                           std::string_view path) {
  ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(node, path));
  AddedToken token;
  ASSIGN_OR_RETURN(token.id, fields.Id("id"));
  ASSIGN_OR_RETURN(token.content, fields.String("content", ""));
  ASSIGN_OR_RETURN(token.special, fields.Bool("special", false));
  ASSIGN_OR_RETURN(const bool normalized,
                   fields.Bool("normalized", !token.special));
  if (normalized) token.where = AddedToken::Where::kNormalized;
  ASSIGN_OR_RETURN(token.single_word, fields.Bool("single_word", false));
  ASSIGN_OR_RETURN(token.lstrip, fields.Bool("lstrip", false));
  ASSIGN_OR_RETURN(token.rstrip, fields.Bool("rstrip", false));
  return token;
}

// {"String": "..."} or {"Regex": "..."}.
struct Pattern {
  std::string text;
  bool is_regex = false;
};

absl::StatusOr<Pattern> ParsePattern(const JsonFields& part) {
  ASSIGN_OR_RETURN(const JsonFields fields, part.Object("pattern"));
  Pattern pattern;
  pattern.is_regex = fields.Find("Regex") != nullptr;
  ASSIGN_OR_RETURN(pattern.text,
                   fields.String(pattern.is_regex ? "Regex" : "String", ""));
  if (pattern.text.empty()) return part.Error("pattern", "is empty");
  return pattern;
}

absl::Status ParseNormalizer(const json& node, const std::string& path,
                             int depth, Normalizer& out) {
  ASSIGN_OR_RETURN(const JsonFields part, JsonFields::Of(node, path));
  ASSIGN_OR_RETURN(const std::string type, part.String("type", ""));
  if (type == "Sequence") {
    if (depth == kMaxDepth) return part.Error("type", "nested too deeply");
    ASSIGN_OR_RETURN(const json* steps, part.Array("normalizers"));
    for (size_t i = 0; i < steps->size(); ++i) {
      RETURN_IF_ERROR(ParseNormalizer(
          (*steps)[i], absl::StrCat(path, ".normalizers[", i, "]"), depth + 1,
          out));
    }
  } else if (type == "NFC") {
    out.Add(Normalizer::Form::kNfc);
  } else if (type == "NFD") {
    out.Add(Normalizer::Form::kNfd);
  } else if (type == "NFKC") {
    out.Add(Normalizer::Form::kNfkc);
  } else if (type == "NFKD") {
    out.Add(Normalizer::Form::kNfkd);
  } else if (type == "Prepend") {
    Normalizer::Prepend prepend;
    ASSIGN_OR_RETURN(prepend.text, part.String("prepend", ""));
    out.Add(std::move(prepend));
  } else if (type == "Replace") {
    ASSIGN_OR_RETURN(Pattern pattern, ParsePattern(part));
    if (pattern.is_regex) {
      return part.Error("pattern", "a Regex is not supported, only a String");
    }
    Normalizer::Replace replace;
    replace.pattern = std::move(pattern.text);
    ASSIGN_OR_RETURN(replace.content, part.String("content", ""));
    out.Add(std::move(replace));
  } else {
    return Unsupported(part, type,
                       "NFC, NFD, NFKC, NFKD, Prepend, Replace, Sequence");
  }
  return absl::OkStatus();
}

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
      return AddRegex("[\\p{P}$+<=>^`|~]", options);
    }
    if (type == "WhitespaceSplit") {
      return AddRegex("\\s+", {.behavior = SplitBehavior::kRemoved});
    }
    return Unsupported(
        part, type,
        "ByteLevel, Digits, Punctuation, Sequence, Split, WhitespaceSplit");
  }

 private:
  absl::Status ReadSequence(const JsonFields& part, int depth) {
    if (depth == kMaxDepth) return part.Error("type", "nested too deeply");
    ASSIGN_OR_RETURN(const json* steps, part.Array("pretokenizers"));
    for (size_t i = 0; i < steps->size(); ++i) {
      RETURN_IF_ERROR(Read((*steps)[i],
                           absl::StrCat(part.path(), ".pretokenizers[", i, "]"),
                           depth + 1));
    }
    return absl::OkStatus();
  }

  absl::Status ReadSplit(const JsonFields& part) {
    ASSIGN_OR_RETURN(const Pattern pattern, ParsePattern(part));
    SplitPattern::Options options;
    ASSIGN_OR_RETURN(options.behavior, ParseBehavior(part));
    ASSIGN_OR_RETURN(options.invert, part.Bool("invert", false));
    if (pattern.is_regex) return AddRegex(pattern.text, options);
    parts_.pretokenizer.Add(SplitPattern::Literal(pattern.text, options));
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

absl::StatusOr<std::pair<std::string, std::string>> ParseMerge(const json& node,
                                                               size_t rank) {
  const auto error = [&] {
    return absl::InvalidArgumentError(
        absl::StrCat("model.merges[", rank,
                     "]: must be \"left right\" or [\"left\", \"right\"]"));
  };
  if (node.is_array()) {
    if (node.size() != 2 || !node[0].is_string() || !node[1].is_string()) {
      return error();
    }
    return std::make_pair(node[0].get<std::string>(),
                          node[1].get<std::string>());
  }
  if (!node.is_string()) return error();
  const auto& text = node.get_ref<const std::string&>();
  const size_t space = text.find(' ');
  if (space == std::string::npos ||
      text.find(' ', space + 1) != std::string::npos) {
    return error();
  }
  return std::make_pair(text.substr(0, space), text.substr(space + 1));
}

// What would change the merging and no known model sets.
absl::Status CheckUnusedModelFields(const JsonFields& model) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    ASSIGN_OR_RETURN(const std::string value, model.String(key, ""));
    if (!value.empty()) {
      return model.Error(
          key, absl::StrCat("'", value, "' is not supported, only none"));
    }
  }
  const json* dropout = model.Find("dropout");
  if (dropout != nullptr && *dropout != 0) {
    return model.Error("dropout", "is not supported, only none");
  }
  return absl::OkStatus();
}

absl::Status ParseModel(const JsonFields& model, BpeParts& bpe) {
  ASSIGN_OR_RETURN(const std::string type, model.String("type", "BPE"));
  if (type != "BPE") return Unsupported(model, type, "BPE");
  RETURN_IF_ERROR(CheckUnusedModelFields(model));
  ASSIGN_OR_RETURN(bpe.byte_fallback, model.Bool("byte_fallback", false));
  ASSIGN_OR_RETURN(bpe.fuse_unknown, model.Bool("fuse_unk", false));
  ASSIGN_OR_RETURN(bpe.ignore_merges, model.Bool("ignore_merges", false));
  ASSIGN_OR_RETURN(const std::string unknown, model.String("unk_token", ""));
  if (!unknown.empty()) bpe.unknown_token = unknown;

  RETURN_IF_ERROR(model.Object("vocab").status());
  const json& vocabulary = *model.Find("vocab");
  bpe.vocabulary.reserve(vocabulary.size());
  for (const auto& [token, id] : vocabulary.items()) {
    ASSIGN_OR_RETURN(const int32_t value,
                     JsonId(id, absl::StrCat("model.vocab['", token, "']")));
    bpe.vocabulary.emplace_back(token, value);
  }
  ASSIGN_OR_RETURN(const json* merges, model.Array("merges"));
  bpe.merges.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    // A file of an old converter begins its list with "#version: 0.2".
    const json& merge = (*merges)[i];
    if (merge.is_string() &&
        merge.get_ref<const std::string&>().starts_with("#version")) {
      continue;
    }
    ASSIGN_OR_RETURN(auto pair, ParseMerge(merge, i));
    bpe.merges.push_back(std::move(pair));
  }
  return absl::OkStatus();
}

absl::Status ParseDecoder(const json& node, const std::string& path, int depth,
                          DecodeSteps& out) {
  ASSIGN_OR_RETURN(const JsonFields part, JsonFields::Of(node, path));
  ASSIGN_OR_RETURN(const std::string type, part.String("type", ""));
  if (out.byte_level || out.strip_count > 0) {
    return part.Error("type", absl::StrCat("'", type,
                                           "' after ByteLevel or Strip is not "
                                           "supported"));
  }
  if (type == "Sequence") {
    if (depth == kMaxDepth) return part.Error("type", "nested too deeply");
    ASSIGN_OR_RETURN(const json* steps, part.Array("decoders"));
    for (size_t i = 0; i < steps->size(); ++i) {
      RETURN_IF_ERROR(ParseDecoder((*steps)[i],
                                   absl::StrCat(path, ".decoders[", i, "]"),
                                   depth + 1, out));
    }
  } else if (type == "ByteLevel") {
    out.byte_level = true;
  } else if (type == "ByteFallback") {
    out.byte_fallback = true;
  } else if (type == "Replace") {
    ASSIGN_OR_RETURN(Pattern pattern, ParsePattern(part));
    if (pattern.is_regex) {
      return part.Error("pattern", "a Regex is not supported, only a String");
    }
    ASSIGN_OR_RETURN(std::string content, part.String("content", ""));
    out.replace.emplace_back(std::move(pattern.text), std::move(content));
  } else if (type == "Strip") {
    ASSIGN_OR_RETURN(out.strip, part.String("content", " "));
    ASSIGN_OR_RETURN(out.strip_count, part.Id("start"));
    ASSIGN_OR_RETURN(const int32_t stop, part.Id("stop"));
    if (stop != 0) return part.Error("stop", "is not supported, only 0");
    if (out.strip.empty()) return part.Error("content", "is empty");
  } else if (type != "Fuse") {
    return Unsupported(part, type,
                       "ByteFallback, ByteLevel, Fuse, Replace, Sequence, "
                       "Strip");
  }
  return absl::OkStatus();
}

// TemplateProcessing: what stands before and after the text of one sequence.
absl::Status ParseTemplate(const JsonFields& part, TokenizerParts& out) {
  ASSIGN_OR_RETURN(const json* single, part.Array("single"));
  bool after_text = false;
  for (size_t i = 0; i < single->size(); ++i) {
    const std::string path = absl::StrCat(part.path(), ".single[", i, "]");
    ASSIGN_OR_RETURN(const JsonFields piece,
                     JsonFields::Of((*single)[i], path));
    if (piece.Find("Sequence") != nullptr) {
      after_text = true;
      continue;
    }
    ASSIGN_OR_RETURN(const JsonFields special, piece.Object("SpecialToken"));
    ASSIGN_OR_RETURN(const std::string name, special.String("id", ""));
    ASSIGN_OR_RETURN(const JsonFields table, part.Object("special_tokens"));
    ASSIGN_OR_RETURN(const JsonFields entry, table.Object(name));
    ASSIGN_OR_RETURN(const json* ids, entry.Array("ids"));
    for (const json& id : *ids) {
      ASSIGN_OR_RETURN(const int32_t value, JsonId(id, entry.path()));
      (after_text ? out.suffix : out.prefix).push_back(value);
    }
  }
  return absl::OkStatus();
}

absl::Status ParsePostProcessor(const json& node, const std::string& path,
                                int depth, TokenizerParts& out) {
  ASSIGN_OR_RETURN(const JsonFields part, JsonFields::Of(node, path));
  ASSIGN_OR_RETURN(const std::string type, part.String("type", ""));
  if (type == "ByteLevel") return absl::OkStatus();  // moves offsets only
  if (type == "TemplateProcessing") return ParseTemplate(part, out);
  if (type != "Sequence") {
    return Unsupported(part, type, "ByteLevel, Sequence, TemplateProcessing");
  }
  if (depth == kMaxDepth) return part.Error("type", "nested too deeply");
  ASSIGN_OR_RETURN(const json* steps, part.Array("processors"));
  for (size_t i = 0; i < steps->size(); ++i) {
    RETURN_IF_ERROR(ParsePostProcessor(
        (*steps)[i], absl::StrCat(path, ".processors[", i, "]"), depth + 1,
        out));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerParts> ParseTokenizerJson(const json& root) {
  ASSIGN_OR_RETURN(const JsonFields fields,
                   JsonFields::Of(root, "tokenizer.json"));
  TokenizerParts parts;
  ASSIGN_OR_RETURN(const JsonFields model, fields.Object("model"));
  RETURN_IF_ERROR(ParseModel(model, parts.bpe));
  if (fields.Find("added_tokens") != nullptr) {
    ASSIGN_OR_RETURN(const json* tokens, fields.Array("added_tokens"));
    for (size_t i = 0; i < tokens->size(); ++i) {
      ASSIGN_OR_RETURN(
          AddedToken token,
          ParseAddedToken((*tokens)[i], absl::StrCat("added_tokens[", i, "]")));
      if (!token.content.empty()) parts.added.push_back(std::move(token));
    }
  }
  if (const json* node = fields.Find("normalizer")) {
    RETURN_IF_ERROR(ParseNormalizer(*node, "normalizer", 0, parts.normalizer));
  }
  if (const json* node = fields.Find("pre_tokenizer")) {
    RETURN_IF_ERROR(PreTokenizerReader(parts).Read(*node, "pre_tokenizer", 0));
  }
  if (const json* node = fields.Find("post_processor")) {
    RETURN_IF_ERROR(ParsePostProcessor(*node, "post_processor", 0, parts));
  }
  if (const json* node = fields.Find("decoder")) {
    RETURN_IF_ERROR(ParseDecoder(*node, "decoder", 0, parts.decode));
  } else {
    parts.decode.separator.assign(1, ' ');
  }
  return parts;
}

}  // namespace bullpen
