#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace bullpen {

inline constexpr int64_t kJsonFileLimit = int64_t{100} << 20;
inline constexpr int kJsonDepthLimit = 64;

// Parses without throwing. `error_code` is what a file of this kind gives
// when it is bad; the message names `where`, and the byte or the key. Refuses
// nesting beyond kJsonDepthLimit and a key twice in one object.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text,
                                         std::string_view where,
                                         absl::StatusCode error_code);

// As above, of a file of at most kJsonFileLimit bytes.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::filesystem::path& path,
                                            absl::StatusCode error_code);

// `text` cut to a length that fits a message, with control bytes escaped.
std::string Printable(std::string_view text);

struct IntRange {
  int64_t least = 0;
  int64_t most = std::numeric_limits<int32_t>::max();
};

struct NumberRange {
  double least = 0;  // itself excluded
  double most = std::numeric_limits<double>::max();
};

// Typed, range-checked fields of a JSON object that describes a model. Keeps
// the first error, and gives the least allowed value after one: ask status()
// before a value is used. A null counts as absent. Borrows the object.
class ConfigFields {
 public:
  // `where` is the file's name for messages.
  ConfigFields(
      const nlohmann::json& object, std::string where,
      absl::StatusCode error_code = absl::StatusCode::kInvalidArgument);

  bool Has(const char* key) const;
  int32_t Int(const char* key, IntRange range);
  int32_t Int(const char* key, IntRange range, int32_t otherwise);
  // Also as transformers 5 writes what JSON cannot: {"__float__": "Infinity"}.
  double Number(const char* key, NumberRange range, double otherwise);
  std::vector<double> Numbers(const char* key, NumberRange range);
  bool Bool(const char* key, bool otherwise);
  std::string String(const char* key);
  std::string String(const char* key, std::string otherwise);
  // One integer or a list of them; empty when absent.
  std::vector<int32_t> Ints(const char* key, IntRange range);
  // Fields of a nested object, which must be there; none after an error.
  ConfigFields Object(const char* key);

  // Records "where: key = value is not supported; `allowed`".
  void Refuse(const char* key, std::string_view allowed);
  void Fail(absl::Status status);
  const absl::Status& status() const { return status_; }
  const nlohmann::json& object() const { return *object_; }

 private:
  const nlohmann::json& At(const char* key) const;
  void Wrong(const char* key, std::string_view wanted);

  const nlohmann::json* object_;
  std::string where_;
  absl::StatusCode error_code_;
  absl::Status status_;
};

}  // namespace bullpen
