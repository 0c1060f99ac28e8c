#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace bullpen {

// Whether `authorization` (the header or metadata of that name) is "Bearer K"
// for a K of `keys`; always, when there are no keys. Takes the same time for
// every wrong key of one length.
bool IsAuthorized(std::string_view authorization,
                  const std::vector<std::string>& keys);

}  // namespace bullpen
