#pragma once

#include "absl/status/status.h"
#include "engine/model/normalizer.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// Reads the "normalizer" of a tokenizer.json. InvalidArgument names the field
// that is wrong, or the type that is not supported with those that are.
absl::Status ParseNormalizer(const nlohmann::json& node, Normalizer& out);

}  // namespace bullpen
