#pragma once

#include <filesystem>
#include <memory>

#include "bench/serve/load.h"

namespace bullpen::bench {

// The bare engine in this process, on the packed model in `packed`: what is
// left when nothing is served. Its difference to the others is their cost.
absl::StatusOr<std::unique_ptr<Transport>> MakeEngineTransport(
    const std::filesystem::path& packed, int32_t threads);

}  // namespace bullpen::bench
