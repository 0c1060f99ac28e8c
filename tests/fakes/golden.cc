#include "tests/fakes/golden.h"

#include <cstring>
#include <fstream>
#include <iterator>

#include "base/check.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  CHECK(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

std::map<std::string, Golden::Tensor> LoadGoldenTensors(
    const std::filesystem::path& path) {
  std::map<std::string, Golden::Tensor> tensors;
  const std::string bytes = ReadAll(path);
  uint64_t header_size = 0;
  std::memcpy(&header_size, bytes.data(), 8);
  const auto header = nlohmann::json::parse(bytes.substr(8, header_size));
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    Golden::Tensor& tensor = tensors[name];
    entry.at("shape").get_to(tensor.shape);
    const size_t begin = entry.at("data_offsets").at(0);
    const size_t end = entry.at("data_offsets").at(1);
    const char* data = bytes.data() + 8 + header_size + begin;
    if (entry.at("dtype") == "F32") {
      tensor.f32.resize((end - begin) / 4);
      std::memcpy(tensor.f32.data(), data, end - begin);
    } else {
      CHECK(entry.at("dtype") == "I32") << name;
      tensor.i32.resize((end - begin) / 4);
      std::memcpy(tensor.i32.data(), data, end - begin);
    }
  }
  return tensors;
}

Golden LoadGolden(const std::filesystem::path& dir) {
  Golden golden;
  const auto json = nlohmann::json::parse(ReadAll(dir / "golden.json"));
  json.at("prompts").get_to(golden.prompts);
  json.at("greedy").get_to(golden.greedy);
  json.at("margins").get_to(golden.margins);
  golden.tensors = LoadGoldenTensors(dir / "golden.safetensors");
  return golden;
}

}  // namespace bullpen
