#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Early return of an error status, and of a StatusOr's error.
#define RETURN_IF_ERROR(expr)                        \
  do {                                               \
    absl::Status bullpen_status = (expr);            \
    if (!bullpen_status.ok()) return bullpen_status; \
  } while (false)

#define BULLPEN_CONCAT_INNER(a, b) a##b
#define BULLPEN_CONCAT(a, b) BULLPEN_CONCAT_INNER(a, b)
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_INNER(BULLPEN_CONCAT(bullpen_or_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_INNER(var, lhs, expr)   \
  auto var = (expr);                             \
  if (!var.ok()) return std::move(var).status(); \
  lhs = *std::move(var)
