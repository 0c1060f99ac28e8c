#include "engine/model/sentencepiece_model.h"

#include <charconv>
#include <string>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "engine/model/json_fields.h"
#include "engine/model/sentencepiece.pb.h"

namespace bullpen {
namespace {

using nlohmann::json;
using sentencepiece::Model;
using sentencepiece::TrainerSpec;
using Piece = Model::Piece;

constexpr std::string_view kMetaspace = "\u2581";

absl::Status CheckSupported(const Model& model) {
  const TrainerSpec& trainer = model.trainer_spec();
  if (trainer.model_type() != TrainerSpec::BPE) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.model: model type ",
                     TrainerSpec::ModelType_Name(trainer.model_type()),
                     " is not supported; supported is BPE"));
  }
  if (trainer.treat_whitespace_as_suffix()) {
    return absl::InvalidArgumentError(
        "tokenizer.model: treat_whitespace_as_suffix is not supported");
  }
  return absl::OkStatus();
}

absl::Status AddNormalizer(const sentencepiece::NormalizerSpec& spec,
                           Normalizer& out) {
  if (!spec.precompiled_charsmap().empty()) {
    ASSIGN_OR_RETURN(CharsMap map,
                     CharsMap::Parse(spec.precompiled_charsmap()));
    out.Add(std::move(map));
  }
  if (spec.remove_extra_whitespaces()) out.Add(Normalizer::SingleSpaces{});
  const std::string space(spec.escape_whitespaces() ? kMetaspace : " ");
  if (spec.add_dummy_prefix()) out.Add(Normalizer::Prepend{space});
  if (spec.escape_whitespaces()) out.Add(Normalizer::Replace{" ", space});
  // Written out, the character of an escaped space counts as one here.
  if (spec.remove_extra_whitespaces()) out.Add(Normalizer::TrimEnd{space});
  return absl::OkStatus();
}

// Fills vocabulary, pieces and the tokens that are no ordinary pieces.
absl::Status AddPieces(const Model& model, TokenizerParts& parts) {
  for (int32_t id = 0; id < model.pieces_size(); ++id) {
    const Piece& piece = model.pieces(id);
    if (piece.piece().empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.model: piece ", id, " is empty"));
    }
    const size_t entry = parts.bpe.vocabulary.size();
    parts.bpe.vocabulary.emplace_back(piece.piece(), id);
    switch (piece.type()) {
      case Piece::NORMAL:
        parts.bpe.pieces.push_back({.entry = entry, .score = piece.score()});
        break;
      case Piece::UNKNOWN:
        if (parts.bpe.unknown_token.has_value()) {
          return absl::InvalidArgumentError(absl::StrCat(
              "tokenizer.model: piece ", id, " is a second unknown piece"));
        }
        parts.bpe.unknown_token = piece.piece();
        parts.spellings.emplace_back(id, model.trainer_spec().unk_surface());
        break;
      case Piece::USER_DEFINED:
        parts.added.push_back({.id = id,
                               .content = piece.piece(),
                               .where = AddedToken::Where::kPieces});
        break;
      case Piece::CONTROL:
        parts.special.push_back(id);
        break;
      case Piece::BYTE:
      case Piece::UNUSED:
        break;
    }
  }
  return absl::OkStatus();
}

// added_tokens_decoder: {"1": {"content": "<s>", "special": true, ...}}.
absl::Status AddDeclaredTokens(const JsonFields& config, const Model& model,
                               TokenizerParts& parts) {
  const json* tokens = config.Find("added_tokens_decoder");
  if (tokens == nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(config.Object("added_tokens_decoder").status());
  for (const auto& [key, entry] : tokens->items()) {
    const std::string path = absl::StrCat("added_tokens_decoder.", key);
    AddedToken token;
    const auto [end, error] =
        std::from_chars(key.data(), key.data() + key.size(), token.id);
    if (error != std::errc() || end != key.data() + key.size() ||
        token.id < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": the key must be a token id"));
    }
    ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(entry, path));
    ASSIGN_OR_RETURN(token.content, fields.String("content", ""));
    ASSIGN_OR_RETURN(token.special, fields.Bool("special", false));
    ASSIGN_OR_RETURN(token.single_word, fields.Bool("single_word", false));
    ASSIGN_OR_RETURN(token.lstrip, fields.Bool("lstrip", false));
    ASSIGN_OR_RETURN(token.rstrip, fields.Bool("rstrip", false));
    if (token.content.empty()) continue;
    if (token.id < model.pieces_size() &&
        model.pieces(token.id).piece() != token.content) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": '", token.content, "' is not piece ", token.id));
    }
    parts.added.push_back(std::move(token));
  }
  return absl::OkStatus();
}

absl::Status AddSurroundings(const JsonFields& config, const Model& model,
                             TokenizerParts& parts) {
  ASSIGN_OR_RETURN(const bool bos, config.Bool("add_bos_token", true));
  ASSIGN_OR_RETURN(const bool eos, config.Bool("add_eos_token", false));
  for (int32_t id = 0; id < model.pieces_size(); ++id) {
    const Piece& piece = model.pieces(id);
    if (piece.type() != Piece::CONTROL) continue;
    if (bos && piece.piece() == model.trainer_spec().bos_piece()) {
      parts.prefix.assign(1, id);
    }
    if (eos && piece.piece() == model.trainer_spec().eos_piece()) {
      parts.suffix.assign(1, id);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerParts> ParseSentencePieceModel(std::string_view bytes,
                                                       const json& config) {
  Model model;
  if (!model.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError(
        "tokenizer.model: not a SentencePiece model");
  }
  RETURN_IF_ERROR(CheckSupported(model));
  ASSIGN_OR_RETURN(const JsonFields fields,
                   JsonFields::Of(config, "tokenizer_config.json"));
  TokenizerParts parts;
  parts.bpe.byte_fallback = model.trainer_spec().byte_fallback();
  parts.bpe.fuse_unknown = true;
  RETURN_IF_ERROR(AddPieces(model, parts));
  if (parts.bpe.pieces.empty()) {
    return absl::InvalidArgumentError("tokenizer.model: has no pieces");
  }
  RETURN_IF_ERROR(AddDeclaredTokens(fields, model, parts));
  RETURN_IF_ERROR(AddSurroundings(fields, model, parts));
  RETURN_IF_ERROR(AddNormalizer(model.normalizer_spec(), parts.normalizer));
  parts.decode.byte_fallback = model.trainer_spec().byte_fallback();
  parts.decode.bytes_stand_alone = true;
  if (model.normalizer_spec().escape_whitespaces()) {
    parts.decode.replace.emplace_back(std::string(kMetaspace), " ");
  }
  const bool remove_extra = model.normalizer_spec().remove_extra_whitespaces();
  if (model.normalizer_spec().add_dummy_prefix() || remove_extra) {
    parts.decode.removed_in_first = kMetaspace;
    parts.decode.removal = remove_extra ? DecodeSteps::Removal::kLeading
                                        : DecodeSteps::Removal::kOnce;
  }
  return parts;
}

}  // namespace bullpen
