#include "engine/model/tokenizer_json.h"

#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "engine/model/json_fields.h"
#include "engine/model/normalizer_json.h"
#include "engine/model/pretokenizer_json.h"
#include "engine/model/tokenizer_document.h"
#include "engine/model/tokenizer_part.h"

namespace bullpen {
namespace {

using nlohmann::json;

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

absl::Status ParseModel(const JsonFields& model, TokenizerDocument& document,
                        BpeParts& bpe) {
  ASSIGN_OR_RETURN(const std::string type, model.String("type", "BPE"));
  if (type != "BPE") return UnsupportedPart(model, type, "BPE");
  RETURN_IF_ERROR(CheckUnusedModelFields(model));
  ASSIGN_OR_RETURN(bpe.byte_fallback, model.Bool("byte_fallback", false));
  ASSIGN_OR_RETURN(bpe.fuse_unknown, model.Bool("fuse_unk", false));
  ASSIGN_OR_RETURN(bpe.ignore_merges, model.Bool("ignore_merges", false));
  ASSIGN_OR_RETURN(const std::string unknown, model.String("unk_token", ""));
  if (!unknown.empty()) bpe.unknown_token = unknown;
  // What stayed in the document has the wrong type, if it is there at all.
  if (!document.has_vocabulary) return model.Object("vocab").status();
  if (!document.has_merges) return model.Array("merges").status();
  bpe.vocabulary = std::move(document.vocabulary);
  bpe.merges = std::move(document.merges);
  return absl::OkStatus();
}

// DecodeSteps are done in one order; these are its stages.
enum class DecodeStage {
  kTokens,  // Replace and Metaspace change each token
  kBytes,   // ByteFallback has joined bytes
  kFused,   // the text is one
  kEnded,   // ByteLevel, or Strip, which takes from the whole text
};

struct DecoderReading {
  DecodeSteps& steps;
  DecodeStage stage = DecodeStage::kTokens;
  std::string last = {};  // type of the latest step
};

// Takes a step of this type, if it is one for the stage.
absl::Status Advance(const JsonFields& part, std::string_view type,
                     bool in_order, DecodeStage next, DecoderReading& reading) {
  if (!in_order) {
    const std::string place = reading.last.empty()
                                  ? "as the first step"
                                  : absl::StrCat("after '", reading.last, "'");
    return part.Error(
        "type", absl::StrCat("'", Absl(type), "' ", place,
                             " is not supported; supported are ByteLevel alone "
                             "and the order Metaspace, Replace, ByteFallback, "
                             "Fuse, Strip"));
  }
  reading.stage = next;
  reading.last = type;
  return absl::OkStatus();
}

// Every replacement becomes a space; those of the first token go where
// encoding put one in front.
absl::Status ParseMetaspaceDecoder(const JsonFields& part,
                                   DecoderReading& reading) {
  DecodeSteps& out = reading.steps;
  ASSIGN_OR_RETURN(std::string replacement,
                   part.String("replacement", "\u2581"));
  ASSIGN_OR_RETURN(const bool prefix, part.Bool("add_prefix_space", true));
  ASSIGN_OR_RETURN(const std::string scheme,
                   part.String("prepend_scheme", prefix ? "always" : "never"));
  if (replacement.empty()) return part.Error("replacement", "is empty");
  // What goes from the first token does so before anything is replaced.
  const bool in_order = reading.stage == DecodeStage::kTokens &&
                        (scheme == "never" || out.replace.empty());
  RETURN_IF_ERROR(
      Advance(part, "Metaspace", in_order, DecodeStage::kTokens, reading));
  if (scheme != "never") out.removed_in_first = replacement;
  out.replace.emplace_back(std::move(replacement), " ");
  return absl::OkStatus();
}

absl::Status ParseReplaceDecoder(const JsonFields& part,
                                 DecoderReading& reading) {
  RETURN_IF_ERROR(Advance(part, "Replace",
                          reading.stage == DecodeStage::kTokens,
                          DecodeStage::kTokens, reading));
  ASSIGN_OR_RETURN(PartPattern pattern, ParsePartPattern(part));
  if (pattern.is_regex) {
    return part.Error("pattern", "a Regex is not supported, only a String");
  }
  ASSIGN_OR_RETURN(std::string content, part.String("content", ""));
  reading.steps.replace.emplace_back(std::move(pattern.text),
                                     std::move(content));
  return absl::OkStatus();
}

absl::Status ParseStripDecoder(const JsonFields& part,
                               DecoderReading& reading) {
  ASSIGN_OR_RETURN(std::string content, part.String("content", " "));
  ASSIGN_OR_RETURN(const int32_t start, part.Id("start"));
  ASSIGN_OR_RETURN(const int32_t stop, part.Id("stop"));
  if (stop != 0) return part.Error("stop", "is not supported, only 0");
  if (content.empty()) return part.Error("content", "is empty");
  if (start == 0) return absl::OkStatus();
  reading.steps.strip = std::move(content);
  reading.steps.strip_count = start;
  return Advance(part, "Strip", reading.stage == DecodeStage::kFused,
                 DecodeStage::kEnded, reading);
}

absl::Status ParseDecoder(const json& node, const std::string& path, int depth,
                          DecoderReading& reading) {
  using enum DecodeStage;
  ASSIGN_OR_RETURN(const JsonFields part, JsonFields::Of(node, path));
  ASSIGN_OR_RETURN(const std::string type, part.String("type", ""));
  const DecodeStage stage = reading.stage;
  if (type == "Sequence") {
    if (depth == kMaxPartDepth) return part.Error("type", "nested too deeply");
    ASSIGN_OR_RETURN(const json* steps, part.Array("decoders"));
    for (size_t i = 0; i < steps->size(); ++i) {
      RETURN_IF_ERROR(ParseDecoder((*steps)[i],
                                   absl::StrCat(path, ".decoders[", i, "]"),
                                   depth + 1, reading));
    }
    return absl::OkStatus();
  }
  if (type == "ByteLevel") {
    reading.steps.byte_level = true;
    return Advance(part, type, reading.last.empty(), kEnded, reading);
  }
  if (type == "ByteFallback") {
    reading.steps.byte_fallback = true;
    return Advance(part, type, stage == kTokens, kBytes, reading);
  }
  if (type == "Fuse") {
    return Advance(part, type, stage != kEnded, kFused, reading);
  }
  if (type == "Replace") return ParseReplaceDecoder(part, reading);
  if (type == "Strip") return ParseStripDecoder(part, reading);
  if (type == "Metaspace") return ParseMetaspaceDecoder(part, reading);
  return UnsupportedPart(part, type,
                         "ByteFallback, ByteLevel, Fuse, Metaspace, Replace, "
                         "Sequence, Strip");
}

// TemplateProcessing: what stands before and after the text of one sequence.
absl::Status ParseTemplate(const JsonFields& part, TokenizerParts& out) {
  ASSIGN_OR_RETURN(const json* single, part.Array("single"));
  int texts = 0;
  for (size_t i = 0; i < single->size(); ++i) {
    const std::string path = absl::StrCat(part.path(), ".single[", i, "]");
    ASSIGN_OR_RETURN(const JsonFields piece,
                     JsonFields::Of((*single)[i], path));
    if (piece.Find("Sequence") != nullptr) {
      ASSIGN_OR_RETURN(const JsonFields text, piece.Object("Sequence"));
      ASSIGN_OR_RETURN(const std::string name, text.String("id", ""));
      if (name != "A") {
        return text.Error(
            "id", absl::StrCat("'", name, "' is not supported, only 'A'"));
      }
      ++texts;
      continue;
    }
    ASSIGN_OR_RETURN(const JsonFields special, piece.Object("SpecialToken"));
    ASSIGN_OR_RETURN(const std::string name, special.String("id", ""));
    ASSIGN_OR_RETURN(const JsonFields table, part.Object("special_tokens"));
    ASSIGN_OR_RETURN(const JsonFields entry, table.Object(name));
    ASSIGN_OR_RETURN(const json* ids, entry.Array("ids"));
    for (const json& id : *ids) {
      ASSIGN_OR_RETURN(const int32_t value, JsonId(id, entry.path()));
      (texts > 0 ? out.suffix : out.prefix).push_back(value);
    }
  }
  if (texts == 1) return absl::OkStatus();
  return part.Error("single", absl::StrCat("has the Sequence 'A' ", texts,
                                           " times, supported is only once"));
}

// ["<s>", 0]
absl::Status ParseSurrounding(const JsonFields& part, std::string_view key,
                              std::vector<int32_t>& ids) {
  ASSIGN_OR_RETURN(const json* pair, part.Array(key));
  if (pair->size() != 2) return part.Error(key, "must be [token, id]");
  ASSIGN_OR_RETURN(
      const int32_t id,
      JsonId((*pair)[1], absl::StrCat(part.path(), ".", Absl(key))));
  ids.push_back(id);
  return absl::OkStatus();
}

absl::Status ParsePostProcessor(const json& node, const std::string& path,
                                int depth, TokenizerParts& out) {
  ASSIGN_OR_RETURN(const JsonFields part, JsonFields::Of(node, path));
  ASSIGN_OR_RETURN(const std::string type, part.String("type", ""));
  if (type == "ByteLevel") return absl::OkStatus();  // moves offsets only
  if (type != "Sequence" && !(out.prefix.empty() && out.suffix.empty())) {
    return part.Error("type",
                      absl::StrCat("'", type,
                                   "' after a processor that adds tokens is "
                                   "not supported"));
  }
  if (type == "TemplateProcessing") return ParseTemplate(part, out);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    RETURN_IF_ERROR(ParseSurrounding(part, "cls", out.prefix));
    return ParseSurrounding(part, "sep", out.suffix);
  }
  if (type != "Sequence") {
    return UnsupportedPart(part, type,
                           "BertProcessing, ByteLevel, RobertaProcessing, "
                           "Sequence, TemplateProcessing");
  }
  if (depth == kMaxPartDepth) return part.Error("type", "nested too deeply");
  ASSIGN_OR_RETURN(const json* steps, part.Array("processors"));
  for (size_t i = 0; i < steps->size(); ++i) {
    RETURN_IF_ERROR(ParsePostProcessor(
        (*steps)[i], absl::StrCat(path, ".processors[", i, "]"), depth + 1,
        out));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerParts> ParseTokenizerJson(std::string_view bytes) {
  ASSIGN_OR_RETURN(TokenizerDocument document, ReadTokenizerDocument(bytes));
  ASSIGN_OR_RETURN(const JsonFields fields,
                   JsonFields::Of(document.root, "tokenizer.json"));
  TokenizerParts parts;
  ASSIGN_OR_RETURN(const JsonFields model, fields.Object("model"));
  RETURN_IF_ERROR(ParseModel(model, document, parts.bpe));
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
    RETURN_IF_ERROR(ParseNormalizer(*node, parts.normalizer));
  }
  if (const json* node = fields.Find("pre_tokenizer")) {
    RETURN_IF_ERROR(ParsePreTokenizer(*node, parts));
  }
  if (const json* node = fields.Find("post_processor")) {
    RETURN_IF_ERROR(ParsePostProcessor(*node, "post_processor", 0, parts));
  }
  if (const json* node = fields.Find("decoder")) {
    DecoderReading reading{.steps = parts.decode};
    RETURN_IF_ERROR(ParseDecoder(*node, "decoder", 0, reading));
  } else {
    parts.decode.separator.assign(1, ' ');
  }
  return parts;
}

}  // namespace bullpen
