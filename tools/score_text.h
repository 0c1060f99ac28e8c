#pragma once

#include <filesystem>

#include "absl/status/statusor.h"
#include "engine/model/importance.h"
#include "tools/model_flags.h"
#include "tools/perplexity.h"

namespace bullpen {

// A model, a text, and how to run the one over the other.
struct TextScoring {
  std::filesystem::path model;  // packed first if it is not
  std::filesystem::path text;   // UTF-8
  int32_t window = 0;           // 0: 512, or the context if that is less
  ModelFlags flags;
  Importance* importance = nullptr;  // gathers the inputs of its matrices
};

// MeasurePerplexity of a file, with a bar on standard error. NotFound and the
// like for the files.
absl::StatusOr<Perplexity> ScoreText(const TextScoring& scoring);

}  // namespace bullpen
