#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/types.h"

namespace bullpen {

// A matrix of noise in panels of a type, for benchmarks; rows of unit length,
// so that values stay sane. InvalidArgument if nothing quantises to the type,
// or its blocks do not divide `cols`.
absl::StatusOr<std::vector<std::byte>> NoisePanels(std::mt19937& random,
                                                   kernels::DType dtype,
                                                   int64_t rows, int64_t cols);

}  // namespace bullpen
