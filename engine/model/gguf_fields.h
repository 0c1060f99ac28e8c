#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/gguf_header.h"

namespace bullpen {

// Typed metadata of a GGUF file, which keeps the first error and gives zeros
// after one: ask status() before a value is used. Borrows the metadata.
class GgufFields {
 public:
  // `where` is the file's name for messages.
  GgufFields(const GgufMetadata& metadata, std::string where)
      : metadata_(metadata), where_(std::move(where)) {}

  bool Has(const std::string& key) const { return metadata_.contains(key); }
  // Absent: an error, or `otherwise`.
  int64_t Int(const std::string& key);
  int64_t Int(const std::string& key, int64_t otherwise);
  double Number(const std::string& key, double otherwise);
  bool Bool(const std::string& key, bool otherwise);
  std::string String(const std::string& key);
  std::string String(const std::string& key, std::string otherwise);
  std::optional<int64_t> OptionalInt(const std::string& key);
  std::optional<bool> OptionalBool(const std::string& key);
  // Empty if absent. One number is a list of one.
  std::vector<int64_t> Ints(const std::string& key);
  std::vector<double> Numbers(const std::string& key);
  std::vector<std::string> Strings(const std::string& key);

  // Records "where: key = value is not supported; `allowed`".
  void Refuse(const std::string& key, std::string_view allowed);
  // Refuses a value, or one of an array, that is none of these; absence is not.
  void RequireOneOf(const std::string& key, std::span<const double> values);
  // Whether any of the functions above has returned the value.
  bool WasRead(const std::string& key) const { return read_.contains(key); }
  const absl::Status& status() const { return status_; }

 private:
  // The value, if it is there and of that type.
  template <typename T>
  const T* Get(const std::string& key);
  void Fail(const std::string& what);

  const GgufMetadata& metadata_;
  std::string where_;
  std::set<std::string> read_;
  absl::Status status_;
};

}  // namespace bullpen
