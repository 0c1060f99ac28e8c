#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace bullpen {

// The reference results of one checkpoint (tests/golden/README.md), read by a
// reader of its own, so that a fault of the reader under test cannot hide.
struct Golden {
  struct Tensor {
    std::vector<int64_t> shape;
    std::vector<float> f32;
    std::vector<int32_t> i32;
  };
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::vector<int32_t>> greedy;
  std::vector<std::vector<double>> margins;
  std::map<std::string, Tensor> tensors;
};

// Aborts the test program if a file is missing or malformed.
Golden LoadGolden(const std::filesystem::path& dir);
// The tensors of a golden file alone.
std::map<std::string, Golden::Tensor> LoadGoldenTensors(
    const std::filesystem::path& path);

}  // namespace bullpen
