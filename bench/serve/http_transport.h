#pragma once

#include <memory>
#include <string>

#include "bench/serve/load.h"

namespace bullpen::bench {

// Streams /v1/completions of the server at `url` ("http://127.0.0.1:8080").
// One thread and one poll loop for all streams, so that the client takes as
// little as it can of the cores that it shares with the server.
absl::StatusOr<std::unique_ptr<Transport>> MakeHttpTransport(
    const std::string& url);

}  // namespace bullpen::bench
