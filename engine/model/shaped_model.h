#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace bullpen {

// A packed model that has the tensor shapes of a real one and noise in them:
// for benchmarks, where what is moved and computed matters and what it means
// does not.
struct ShapedModelOptions {
  std::string shape = "qwen3-30b-a3b";  // one of ShapedModels()
  std::string expert_type = "Q4_K";
  std::string resident_type = "BF16";  // of other matrices; routers stay BF16
  int32_t layers = 0;                  // 0: as many as the real one has
  int32_t top_k = 0;                   // 0: as the real one
  int32_t vocab = 1024;
  // Called now and then with bytes written and the total; may be empty.
  std::function<void(int64_t done, int64_t total)> progress = {};
};

std::vector<std::string> ShapedModels();

// Writes it to `target`, a new directory. All experts of a layer hold the same
// noise, each in its own place. It has no tokenizer.
absl::Status WriteShapedModel(const ShapedModelOptions& options,
                              const std::filesystem::path& target);

}  // namespace bullpen
