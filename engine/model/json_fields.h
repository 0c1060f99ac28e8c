#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// A JSON object with the path that leads to it, for errors that name the
// field. Borrows the document. Nothing here throws.
class JsonFields {
 public:
  // InvalidArgument if `node` is no object.
  static absl::StatusOr<JsonFields> Of(const nlohmann::json& node,
                                       std::string_view path);

  const std::string& path() const { return path_; }

  // Null where the field is absent or null.
  const nlohmann::json* Find(std::string_view key) const;

  // Absent or null gives the fallback, another type InvalidArgument.
  absl::StatusOr<bool> Bool(std::string_view key, bool fallback) const;
  absl::StatusOr<std::string> String(std::string_view key,
                                     std::string_view fallback) const;
  // InvalidArgument where absent, of another type, or out of [0, 2^31).
  absl::StatusOr<int32_t> Id(std::string_view key) const;
  // InvalidArgument where absent or of another type.
  absl::StatusOr<const nlohmann::json*> Array(std::string_view key) const;
  absl::StatusOr<JsonFields> Object(std::string_view key) const;

  absl::Status Error(std::string_view key, std::string_view what) const;

 private:
  JsonFields(const nlohmann::json& node, std::string_view path)
      : node_(&node), path_(path) {}

  const nlohmann::json* node_;
  std::string path_;
};

// An integer in [0, 2^31), else InvalidArgument with `path`.
absl::StatusOr<int32_t> JsonId(const nlohmann::json& node,
                               std::string_view path);

}  // namespace bullpen
