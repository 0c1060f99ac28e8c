#include "engine/model/tokenizer_part.h"

#include "base/status.h"
#include "base/strings.h"

namespace bullpen {

absl::Status UnsupportedPart(const JsonFields& part, std::string_view type,
                             std::string_view supported) {
  return part.Error("type", absl::StrCat("'", Absl(type),
                                         "' is not supported; supported are ",
                                         Absl(supported)));
}

absl::StatusOr<PartPattern> ParsePartPattern(const JsonFields& part) {
  ASSIGN_OR_RETURN(const JsonFields fields, part.Object("pattern"));
  PartPattern pattern;
  pattern.is_regex = fields.Find("Regex") != nullptr;
  ASSIGN_OR_RETURN(pattern.text,
                   fields.String(pattern.is_regex ? "Regex" : "String", ""));
  if (pattern.text.empty()) return part.Error("pattern", "is empty");
  return pattern;
}

}  // namespace bullpen
