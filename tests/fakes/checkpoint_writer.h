#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json.hpp"

namespace bullpen {

// A tensor as a test builds it: any dtype name, any shape, raw bytes.
struct FakeTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

// The tensors of a file, in name order.
std::vector<FakeTensor> ReadTensors(const std::filesystem::path& path);

// A well-formed file of these, in this order.
void WriteTensors(const std::filesystem::path& path,
                  const std::vector<FakeTensor>& tensors);

// Length, header and data as given, whatever they say.
void WriteSafetensors(const std::filesystem::path& path,
                      std::string_view header, std::string_view data);

void WriteText(const std::filesystem::path& path, std::string_view text);
std::string ReadText(const std::filesystem::path& path);
nlohmann::json ReadJson(const std::filesystem::path& path);

// `count` elements of F32, F16 or BF16 as F32.
std::string WidenedBytes(const FakeTensor& tensor);

// `name` in a directory of this process that goes when it exits.
std::filesystem::path ScratchPath(const std::string& name);

// Removes what is at `path`, and makes it an empty directory.
void MakeEmpty(const std::filesystem::path& path);

// XORs one byte in place.
void FlipByte(const std::filesystem::path& path, int64_t offset);

}  // namespace bullpen
