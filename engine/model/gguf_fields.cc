#include "engine/model/gguf_fields.h"

#include <type_traits>

#include "base/strings.h"

namespace bullpen {

void GgufFields::Fail(const std::string& what) {
  if (status_.ok()) {
    status_ = absl::InvalidArgumentError(absl::StrCat(where_, ": ", what));
  }
}

void GgufFields::Refuse(const std::string& key, std::string_view allowed) {
  Fail(absl::StrCat(key, " is not supported as it is; ", Absl(allowed)));
}

template <typename T>
const T* GgufFields::Get(const std::string& key) {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return nullptr;
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
  if (const int64_t* one = std::get_if<int64_t>(&found->second)) return {*one};
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
