#pragma once

#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/model/pack_plan.h"
#include "kernels/types.h"

namespace bullpen {

// What weights are to become; unset: what the source has.
struct TargetTypes {
  // FFNs that are chosen by a router, and those of dense layers.
  std::optional<kernels::DType> experts = {};
  // Embedding, head, attention's projections and shared experts.
  std::optional<kernels::DType> resident = {};
};

// The type of that name, in either case ("q4_k"), if weights can be quantised
// to it. InvalidArgument lists those that there are.
absl::StatusOr<kernels::DType> ParseTargetType(std::string_view name);

// Changes the types of a plan. Routers, vectors and what has no more bits than
// the target stay as they are. Rows that are no whole blocks of the target
// take the type that llama.cpp takes in its place (Q4_K: Q5_0, Q5_K: Q5_1,
// Q6_K: Q8_0), and if not even that fits, stay.
void SetTypes(const TargetTypes& targets, PackPlan& plan);

}  // namespace bullpen
