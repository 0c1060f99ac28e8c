#pragma once

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// The messages of a chat as templates take them: each with a role and a
// content that is a string. Parts of type text are joined by newlines; other
// parts, and tool calls, are errors that name the field.
absl::StatusOr<nlohmann::json> ParseMessages(const nlohmann::json* messages);

// chat_template_kwargs: a small object of scalars that cannot take the place
// of what the server itself gives to the template. Null: an empty object.
absl::StatusOr<nlohmann::json> ParseTemplateVariables(
    const nlohmann::json* variables);

}  // namespace bullpen
