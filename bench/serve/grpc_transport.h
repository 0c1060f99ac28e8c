#pragma once

#include <memory>
#include <string>

#include "bench/serve/load.h"

namespace bullpen::bench {

// Streams Generate of the server at `target` ("127.0.0.1:50051"), a thread for
// each stream.
std::unique_ptr<Transport> MakeGrpcTransport(const std::string& target);

}  // namespace bullpen::bench
