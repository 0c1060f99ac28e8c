#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// The messages of a chat as templates take them: each with a role and a
// content that is a string, or null beside tool calls, which stay as they are
// given. Parts of type text are joined by newlines; other parts are errors
// that name the field, as are more than `max_messages`.
absl::StatusOr<nlohmann::ordered_json> ParseMessages(
    const nlohmann::ordered_json* messages, int32_t max_messages);

// The list of functions that a model may call, as it was given, or null.
// InvalidArgument names the entry that is no function with a name.
absl::StatusOr<nlohmann::ordered_json> ParseTools(
    const nlohmann::ordered_json* tools);

// chat_template_kwargs: a small object of scalars that cannot take the place
// of what the server itself gives to the template. Null: an empty object.
absl::StatusOr<nlohmann::ordered_json> ParseTemplateVariables(
    const nlohmann::ordered_json* variables);

}  // namespace bullpen
