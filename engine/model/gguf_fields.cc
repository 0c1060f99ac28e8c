#include "engine/model/gguf_fields.h"

#include <algorithm>
#include <type_traits>

#include "absl/strings/str_join.h"
#include "base/strings.h"
#include "engine/model/config_fields.h"

namespace bullpen {
namespace {

std::string ValueText(const GgufValue& value) {
  return std::visit(
      [&](const auto& held) -> std::string {
        using T = std::remove_cvref_t<decltype(held)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return absl::StrCat("'", Printable(held), "'");
        } else if constexpr (std::is_same_v<T, bool>) {
          return held ? "true" : "false";
        } else if constexpr (std::is_arithmetic_v<T>) {
          return absl::StrCat(held);
        } else {
          return std::string(GgufTypeName(value));
        }
      },
      value);
}

}  // namespace

void GgufFields::Fail(const std::string& what) {
  if (status_.ok()) {
    status_ = absl::InvalidArgumentError(absl::StrCat(where_, ": ", what));
  }
}

void GgufFields::Refuse(const std::string& key, std::string_view allowed) {
  const auto found = metadata_.find(key);
  const std::string value =
      found == metadata_.end() ? "absent" : ValueText(found->second);
  Fail(absl::StrCat(key, " = ", value, " is not supported; ", Absl(allowed)));
}

void GgufFields::RequireOneOf(const std::string& key,
                              std::span<const double> values) {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return;
  const auto good = [&](double number) {
    return std::ranges::find(values, number) != values.end();
  };
  const bool all = std::visit(
      [&](const auto& value) {
        using T = std::remove_cvref_t<decltype(value)>;
        if constexpr (std::is_arithmetic_v<T>) {
          return good(static_cast<double>(value));
        } else if constexpr (std::is_same_v<T, std::vector<int64_t>> ||
                             std::is_same_v<T, std::vector<double>>) {
          return std::ranges::all_of(value, good);
        } else {
          return false;
        }
      },
      found->second);
  if (!all) Refuse(key, absl::StrCat(absl::StrJoin(values, " or "), " is"));
}

template <typename T>
const T* GgufFields::Get(const std::string& key) {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return nullptr;
  read_.insert(key);
  const T* value = std::get_if<T>(&found->second);
  if (value == nullptr) {
    Fail(absl::StrCat("the metadata key ", key, " is ",
                      Absl(GgufTypeName(found->second)), " instead of ",
                      Absl(GgufTypeName(GgufValue(T{})))));
  }
  return value;
}

int64_t GgufFields::Int(const std::string& key) {
  if (!Has(key)) Fail(absl::StrCat("has no metadata key ", key));
  return Int(key, 0);
}

int64_t GgufFields::Int(const std::string& key, int64_t otherwise) {
  return OptionalInt(key).value_or(otherwise);
}

std::optional<int64_t> GgufFields::OptionalInt(const std::string& key) {
  const int64_t* value = Get<int64_t>(key);
  if (value == nullptr) return std::nullopt;
  return *value;
}

double GgufFields::Number(const std::string& key, double otherwise) {
  const double* value = Get<double>(key);
  return value != nullptr ? *value : otherwise;
}

bool GgufFields::Bool(const std::string& key, bool otherwise) {
  return OptionalBool(key).value_or(otherwise);
}

std::optional<bool> GgufFields::OptionalBool(const std::string& key) {
  const bool* value = Get<bool>(key);
  if (value == nullptr) return std::nullopt;
  return *value;
}

std::string GgufFields::String(const std::string& key) {
  if (!Has(key)) Fail(absl::StrCat("has no metadata key ", key));
  return String(key, "");
}

std::string GgufFields::String(const std::string& key, std::string otherwise) {
  const std::string* value = Get<std::string>(key);
  return value != nullptr ? *value : otherwise;
}

std::vector<int64_t> GgufFields::Ints(const std::string& key) {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return {};
  if (std::holds_alternative<int64_t>(found->second)) return {Int(key)};
  const std::vector<int64_t>* value = Get<std::vector<int64_t>>(key);
  return value != nullptr ? *value : std::vector<int64_t>();
}

std::vector<double> GgufFields::Numbers(const std::string& key) {
  const std::vector<double>* value = Get<std::vector<double>>(key);
  return value != nullptr ? *value : std::vector<double>();
}

std::vector<std::string> GgufFields::Strings(const std::string& key) {
  const std::vector<std::string>* value = Get<std::vector<std::string>>(key);
  return value != nullptr ? *value : std::vector<std::string>();
}

}  // namespace bullpen
