#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "server/translate.h"

namespace bullpen {

// Parses a request body that must be one JSON object in valid UTF-8, nested at
// most limits.max_json_depth deep, with at most max_json_parts objects, lists
// and fields, no key twice in an object. InvalidArgument says where it went
// wrong. The order of keys is kept: templates print what they get.
absl::StatusOr<nlohmann::ordered_json> ParseJsonObject(
    std::string_view body, const RequestLimits& limits);

// Appends `text` in quotes. Ill-formed UTF-8 becomes U+FFFD.
void AppendJsonString(std::string& out, std::string_view text);
// Appends the shortest digits that give `value` back; no infinities in JSON.
void AppendJsonNumber(std::string& out, float value);

// Reads the fields of one object, each once. A field that is absent or null
// is unset. The first error stays; reading goes on so that callers need no
// check after every field. `object` outlives it.
class BodyFields {
 public:
  // `prefix` stands before field names in errors: "messages[3].".
  explicit BodyFields(const nlohmann::ordered_json& object,
                      std::string prefix = "");

  std::optional<int32_t> Int(std::string_view name);
  std::optional<int64_t> Int64(std::string_view name);
  std::optional<float> Float(std::string_view name);
  std::optional<bool> Bool(std::string_view name);
  std::optional<std::string> String(std::string_view name);
  // Null if unset.
  const nlohmann::ordered_json* Any(std::string_view name);

  // Fields that may hold anything and change nothing.
  void Ignore(std::initializer_list<std::string_view> names);
  // A field of other servers that is accepted only where it asks for nothing:
  // null or one of `harmless`.
  void Unsupported(std::string_view name,
                   std::initializer_list<nlohmann::ordered_json> harmless = {});

  void Fail(absl::Status status);
  void Fail(std::string_view name, std::string_view what);
  // The first error, or one that names a field that nobody read.
  absl::Status Finish() const;

 private:
  void WrongType(std::string_view name, const nlohmann::ordered_json& value,
                 std::string_view expected);

  const nlohmann::ordered_json& object_;
  std::string prefix_;
  std::set<std::string, std::less<>> read_;
  absl::Status status_;
};

// `value` as text for an error message, shortened.
std::string ShortJson(const nlohmann::ordered_json& value);

}  // namespace bullpen
