#include "server/api_keys.h"

#include "absl/strings/match.h"
#include "base/strings.h"

namespace bullpen {
namespace {

bool SameBytes(std::string_view offered, std::string_view key) {
  unsigned difference = offered.size() == key.size() ? 0 : 1;
  for (size_t i = 0; i < offered.size(); ++i) {
    const char expected = key.empty() ? '\0' : key[i % key.size()];
    difference |= static_cast<unsigned char>(offered[i] ^ expected);
  }
  return difference == 0;
}

}  // namespace

bool IsAuthorized(std::string_view authorization,
                  const std::vector<std::string>& keys) {
  if (keys.empty()) return true;
  constexpr std::string_view kScheme = "Bearer ";
  if (!absl::StartsWithIgnoreCase(Absl(authorization), Absl(kScheme))) {
    return false;
  }
  const std::string_view offered = authorization.substr(kScheme.size());
  // Every key is looked at, so that the time does not tell which one is near.
  bool found = false;
  for (const std::string& key : keys) found |= SameBytes(offered, key);
  return found;
}

}  // namespace bullpen
