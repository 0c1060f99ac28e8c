#include "engine/model/json_fields.h"

#include <limits>

#include "base/strings.h"

namespace bullpen {

using nlohmann::json;

absl::StatusOr<JsonFields> JsonFields::Of(const json& node,
                                          std::string_view path) {
  if (!node.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Absl(path), ": must be an object, is ", node.type_name()));
  }
  return JsonFields(node, path);
}

const json* JsonFields::Find(std::string_view key) const {
  const auto it = node_->find(key);
  return it == node_->end() || it->is_null() ? nullptr : &*it;
}

absl::Status JsonFields::Error(std::string_view key,
                               std::string_view what) const {
  return absl::InvalidArgumentError(
      absl::StrCat(path_, ".", Absl(key), ": ", Absl(what)));
}

absl::StatusOr<bool> JsonFields::Bool(std::string_view key,
                                      bool fallback) const {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return Error(key, "must be true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> JsonFields::String(
    std::string_view key, std::string_view fallback) const {
  const json* value = Find(key);
  if (value == nullptr) return std::string(fallback);
  if (!value->is_string()) return Error(key, "must be a string");
  return value->get<std::string>();
}

absl::StatusOr<int32_t> JsonFields::Id(std::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return Error(key, "is missing");
  return JsonId(*value, absl::StrCat(path_, ".", Absl(key)));
}

absl::StatusOr<const json*> JsonFields::Array(std::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return Error(key, "is missing");
  if (!value->is_array()) return Error(key, "must be an array");
  return value;
}

absl::StatusOr<JsonFields> JsonFields::Object(std::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return Error(key, "is missing");
  return Of(*value, absl::StrCat(path_, ".", Absl(key)));
}

absl::StatusOr<int32_t> JsonId(const json& node, std::string_view path) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (node.is_number_integer()) {
    const bool fits = node.is_number_unsigned()
                          ? node.get<uint64_t>() <= uint64_t{kMax}
                          : node.get<int64_t>() >= 0;
    if (fits && node.get<int64_t>() <= kMax) {
      return static_cast<int32_t>(node.get<int64_t>());
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat(Absl(path), ": must be an integer from 0 to ", kMax));
}

}  // namespace bullpen
