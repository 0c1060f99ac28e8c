#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/experts/activation_store.h"
#include "engine/experts/predictor.h"

// A profile keeps what was learnt about a model's routing across restarts:
// conditional tables, popularity, and the activation matrices of past requests.
// It holds counts of experts, nothing of any text. All numbers little endian:
//   "BPPROF01"  u32 layers  { u32 experts  u32 top_k }[layers]
//   u32 horizons  u32 matrices
//   f32 popularity[experts] of each layer
//   for each horizon h and each layer l >= h: u16 counts[experts of l - h,
//   experts of l], u16 totals[experts of l - h]
//   f32 shares[layers, most experts] of each matrix
//   u64 XXH3 of what comes before
namespace bullpen {

std::string EncodeProfile(const RoutingPredictor& predictor,
                          const ActivationStore& store);
// FailedPrecondition: of a model of another shape. InvalidArgument: damaged.
// Neither changes anything.
absl::Status DecodeProfile(std::string_view bytes, RoutingPredictor& predictor,
                           ActivationStore& store);

// Whether a server may keep its profile at `path`: there is none yet and one
// can be made, or what is there is a profile of a model of this shape, damaged
// or not. InvalidArgument otherwise: what is no profile is never replaced.
absl::Status CheckProfilePath(const std::filesystem::path& path,
                              const RoutingShape& shape);
// Replaces the file in one step, so that there is always a whole one.
absl::Status SaveProfile(const std::filesystem::path& path,
                         const RoutingPredictor& predictor,
                         const ActivationStore& store);
// NotFound where there is none yet.
absl::Status LoadProfile(const std::filesystem::path& path,
                         RoutingPredictor& predictor, ActivationStore& store);

// By layer and expert, the share of the tokens of past requests that used it;
// where the profile has no requests, its popularity. For PolicyKind::kStatic.
absl::StatusOr<std::vector<std::vector<float>>> LoadExpertShares(
    const std::filesystem::path& path, const RoutingShape& shape);

}  // namespace bullpen
