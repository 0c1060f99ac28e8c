#include "engine/model/gguf_vocabulary.h"

#include <string_view>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "engine/model/gguf_patterns.h"
#include "engine/model/sentencepiece.pb.h"
#include "engine/model/utf8.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

using nlohmann::json;
using sentencepiece::Model;

// tokenizer.ggml.token_type has the numbers of SentencePiece's types.
using Type = Model::Piece::Type;

absl::Status Wrong(std::string_view key, std::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer.ggml.", Absl(key), ": ", Absl(what)));
}

absl::Status CheckLengths(const GgufVocabulary& vocabulary) {
  const size_t tokens = vocabulary.tokens.size();
  if (tokens == 0) return Wrong("tokens", "is missing or empty");
  const auto fits = [&](std::string_view key, size_t size) {
    if (size == 0 || size == tokens) return absl::OkStatus();
    return Wrong(
        key, absl::StrCat("has ", size, " entries for ", tokens, " tokens"));
  };
  RETURN_IF_ERROR(fits("scores", vocabulary.scores.size()));
  RETURN_IF_ERROR(fits("token_type", vocabulary.types.size()));
  for (size_t id = 0; id < vocabulary.types.size(); ++id) {
    // 0 is what a converter writes that does not know.
    if (vocabulary.types[id] == 0 ||
        Model::Piece::Type_IsValid(vocabulary.types[id])) {
      continue;
    }
    return Wrong("token_type", absl::StrCat(vocabulary.types[id], " of token ",
                                            id, " is none of 0 to 6"));
  }
  const std::pair<const char*, std::optional<int64_t>> ids[] = {
      {"bos_token_id", vocabulary.bos},
      {"eos_token_id", vocabulary.eos},
      {"unknown_token_id", vocabulary.unknown},
      {"padding_token_id", vocabulary.padding}};
  for (const auto& [key, id] : ids) {
    if (!id.has_value()) continue;
    if (*id >= 0 && *id < static_cast<int64_t>(tokens)) continue;
    return Wrong(key, absl::StrCat(*id, " is not one of ", tokens, " tokens"));
  }
  return absl::OkStatus();
}

Type TypeOf(const GgufVocabulary& vocabulary, size_t id) {
  if (vocabulary.types.empty() || vocabulary.types[id] == 0) {
    return Model::Piece::NORMAL;
  }
  return static_cast<Type>(vocabulary.types[id]);
}

// tokens[*id], as JSON can hold it.
std::optional<std::string> TextOf(const GgufVocabulary& vocabulary,
                                  std::optional<int64_t> id) {
  if (!id.has_value()) return std::nullopt;
  std::string text;
  AppendLossyUtf8(vocabulary.tokens[static_cast<size_t>(*id)], text);
  return text;
}

std::string Bytes(const json& document) {
  return document.dump(-1, ' ', false, json::error_handler_t::replace);
}

json AddedToken(size_t id, std::string_view content, bool special) {
  return {{"id", id},          {"content", content}, {"single_word", false},
          {"lstrip", false},   {"rstrip", false},    {"normalized", false},
          {"special", special}};
}

// Control and user-defined tokens are found in text, as where a model's own
// tokenizer.json lists them.
bool IsAdded(Type type) {
  return type == Model::Piece::CONTROL || type == Model::Piece::USER_DEFINED ||
         type == Model::Piece::UNKNOWN;
}

json PreTokenizer(const GgufPatterns& patterns) {
  json steps = json::array();
  for (const std::string_view pattern : patterns.splits) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", pattern}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"},
                   {"add_prefix_space", false},
                   {"trim_offsets", false},
                   {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

// TemplateProcessing with the tokens that are added around a text, or null.
json PostProcessor(const GgufVocabulary& vocabulary, bool add_bos) {
  json single = json::array();
  json tokens = json::object();
  const auto add = [&](bool wanted, std::optional<int64_t> id) {
    const std::optional<std::string> text = TextOf(vocabulary, id);
    if (!wanted || !text.has_value()) return;
    single.push_back({{"SpecialToken", {{"id", *text}, {"type_id", 0}}}});
    tokens[*text] = {{"id", *text}, {"ids", {*id}}, {"tokens", {*text}}};
  };
  add(add_bos, vocabulary.bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add(vocabulary.add_eos.value_or(false), vocabulary.eos);
  if (tokens.empty()) return nullptr;
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", json::array()},
          {"special_tokens", std::move(tokens)}};
}

absl::StatusOr<json> Merges(const GgufVocabulary& vocabulary) {
  json merges = json::array();
  for (size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const std::string& merge = vocabulary.merges[i];
    // A token may begin with the space, never end with it.
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos || space + 1 == merge.size()) {
      return Wrong("merges",
                   absl::StrCat("entry ", i, " is not \"left right\""));
    }
    merges.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  return merges;
}

absl::StatusOr<DescriptionFile> TokenizerJson(
    const GgufVocabulary& vocabulary) {
  ASSIGN_OR_RETURN(const GgufPatterns patterns,
                   FindGgufPatterns(vocabulary.pre));
  json vocab = json::object();
  json added = json::array();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    if (!IsValidUtf8(token)) {
      return Wrong("tokens", absl::StrCat("entry ", id, " is not UTF-8"));
    }
    const Type type = TypeOf(vocabulary, id);
    if (IsAdded(type)) {
      added.push_back(
          AddedToken(id, token, type != Model::Piece::USER_DEFINED));
    }
    // Of the fillers of a padded vocabulary that have one name, the first.
    vocab.emplace(token, id);
  }
  ASSIGN_OR_RETURN(json merges, Merges(vocabulary));
  const json byte_level = {{"type", "ByteLevel"}};
  const bool add_bos = vocabulary.add_bos.value_or(patterns.add_bos);
  json normalizer;
  if (patterns.nfc) normalizer = {{"type", "NFC"}};
  return DescriptionFile{
      "tokenizer.json",
      Bytes({{"version", "1.0"},
             {"added_tokens", std::move(added)},
             {"normalizer", std::move(normalizer)},
             {"pre_tokenizer", PreTokenizer(patterns)},
             {"post_processor", PostProcessor(vocabulary, add_bos)},
             {"decoder", byte_level},
             {"model",
              {{"type", "BPE"},
               {"ignore_merges", patterns.ignore_merges},
               {"vocab", std::move(vocab)},
               {"merges", std::move(merges)}}}})};
}

absl::StatusOr<DescriptionFile> SentencePieceModel(
    const GgufVocabulary& vocabulary) {
  if (vocabulary.scores.empty()) return Wrong("scores", "is missing");
  Model model;
  bool has_bytes = false;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    Model::Piece* piece = model.add_pieces();
    piece->set_piece(vocabulary.tokens[id]);
    piece->set_score(vocabulary.scores[id]);
    // What converters call user-defined are a model's added tokens: they are
    // found in the text, not among the pieces that it becomes.
    const Type type = TypeOf(vocabulary, id);
    piece->set_type(type == Model::Piece::USER_DEFINED ? Model::Piece::UNUSED
                                                       : type);
    has_bytes = has_bytes || piece->type() == Model::Piece::BYTE;
  }
  sentencepiece::TrainerSpec* trainer = model.mutable_trainer_spec();
  trainer->set_model_type(sentencepiece::TrainerSpec::BPE);
  trainer->set_byte_fallback(has_bytes);
  const auto text = [&](int64_t id) {
    return vocabulary.tokens[static_cast<size_t>(id)];
  };
  if (vocabulary.bos.has_value()) trainer->set_bos_piece(text(*vocabulary.bos));
  if (vocabulary.eos.has_value()) trainer->set_eos_piece(text(*vocabulary.eos));
  sentencepiece::NormalizerSpec* normalizer = model.mutable_normalizer_spec();
  normalizer->set_name("identity");
  normalizer->set_add_dummy_prefix(vocabulary.add_space_prefix.value_or(true));
  normalizer->set_remove_extra_whitespaces(
      vocabulary.remove_extra_whitespaces.value_or(false));
  return DescriptionFile{"tokenizer.model", model.SerializeAsString()};
}

DescriptionFile TokenizerConfig(const GgufVocabulary& vocabulary) {
  json config = json::object();
  json added = json::object();
  if (vocabulary.model == "llama") {
    for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      const Type type = TypeOf(vocabulary, id);
      if (!IsAdded(type)) continue;
      added[absl::StrCat(id)] = AddedToken(id, vocabulary.tokens[id],
                                           type != Model::Piece::USER_DEFINED);
    }
    config["added_tokens_decoder"] = std::move(added);
    config["add_bos_token"] = vocabulary.add_bos.value_or(true);
    config["add_eos_token"] = vocabulary.add_eos.value_or(false);
  }
  const std::pair<const char*, std::optional<int64_t>> names[] = {
      {"bos_token", vocabulary.bos},
      {"eos_token", vocabulary.eos},
      {"unk_token", vocabulary.unknown},
      {"pad_token", vocabulary.padding}};
  for (const auto& [name, id] : names) {
    if (auto text = TextOf(vocabulary, id)) config[name] = *std::move(text);
  }
  if (!vocabulary.chat_template.empty()) {
    config["chat_template"] = vocabulary.chat_template;
  }
  return {"tokenizer_config.json", Bytes(config)};
}

}  // namespace

absl::StatusOr<std::vector<DescriptionFile>> GgufTokenizerFiles(
    const GgufVocabulary& vocabulary) {
  RETURN_IF_ERROR(CheckLengths(vocabulary));
  std::vector<DescriptionFile> files;
  if (vocabulary.model == "gpt2") {
    ASSIGN_OR_RETURN(DescriptionFile file, TokenizerJson(vocabulary));
    files.push_back(std::move(file));
  } else if (vocabulary.model == "llama") {
    ASSIGN_OR_RETURN(DescriptionFile file, SentencePieceModel(vocabulary));
    files.push_back(std::move(file));
  } else {
    return Wrong("model", absl::StrCat("'", vocabulary.model,
                                       "' is not supported; supported are "
                                       "gpt2, llama"));
  }
  files.push_back(TokenizerConfig(vocabulary));
  return files;
}

}  // namespace bullpen
