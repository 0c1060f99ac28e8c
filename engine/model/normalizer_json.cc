#include "engine/model/normalizer_json.h"

#include <optional>
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

// Steps without fields of their own.
std::optional<Normalizer::Step> SimpleStep(std::string_view type) {
  if (type == "NFC") return Normalizer::Form::kNfc;
  if (type == "NFD") return Normalizer::Form::kNfd;
  if (type == "NFKC") return Normalizer::Form::kNfkc;
  if (type == "NFKD") return Normalizer::Form::kNfkd;
  if (type == "Lowercase") return Normalizer::Lowercase{};
  if (type == "StripAccents") return Normalizer::StripAccents{};
  if (type == "ByteLevel") return Normalizer::SpellBytes{};
  return std::nullopt;
}

absl::StatusOr<Normalizer::Step> ParseReplace(const JsonFields& part) {
  ASSIGN_OR_RETURN(PartPattern pattern, ParsePartPattern(part));
  ASSIGN_OR_RETURN(std::string content, part.String("content", ""));
  if (!pattern.is_regex) {
    return Normalizer::Replace{std::move(pattern.text), std::move(content)};
  }
  ASSIGN_OR_RETURN(SplitPattern compiled,
                   SplitPattern::Regex(pattern.text, {}));
  return Normalizer::ReplaceMatches{std::move(compiled), std::move(content)};
}

absl::Status ParseStep(const json& node, const std::string& path, int depth,
                       Normalizer& out) {
  ASSIGN_OR_RETURN(const JsonFields part, JsonFields::Of(node, path));
  ASSIGN_OR_RETURN(const std::string type, part.String("type", ""));
  if (std::optional<Normalizer::Step> step = SimpleStep(type)) {
    out.Add(*std::move(step));
  } else if (type == "Sequence") {
    if (depth == kMaxPartDepth) return part.Error("type", "nested too deeply");
    ASSIGN_OR_RETURN(const json* steps, part.Array("normalizers"));
    for (size_t i = 0; i < steps->size(); ++i) {
      RETURN_IF_ERROR(ParseStep((*steps)[i],
                                absl::StrCat(path, ".normalizers[", i, "]"),
                                depth + 1, out));
    }
  } else if (type == "Prepend") {
    Normalizer::Prepend prepend;
    ASSIGN_OR_RETURN(prepend.text, part.String("prepend", ""));
    out.Add(std::move(prepend));
  } else if (type == "Strip") {
    Normalizer::Strip strip;
    ASSIGN_OR_RETURN(strip.left, part.Bool("strip_left", true));
    ASSIGN_OR_RETURN(strip.right, part.Bool("strip_right", true));
    out.Add(strip);
  } else if (type == "Replace") {
    ASSIGN_OR_RETURN(Normalizer::Step step, ParseReplace(part));
    out.Add(std::move(step));
  } else {
    return UnsupportedPart(part, type,
                           "ByteLevel, Lowercase, NFC, NFD, NFKC, NFKD, "
                           "Prepend, Replace, Sequence, Strip, StripAccents");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ParseNormalizer(const json& node, Normalizer& out) {
  return ParseStep(node, "normalizer", 0, out);
}

}  // namespace bullpen
