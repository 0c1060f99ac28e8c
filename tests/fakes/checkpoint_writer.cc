#include "tests/fakes/checkpoint_writer.h"

#include <unistd.h>

#include <cstring>
#include <fstream>
#include <span>
#include <sstream>
#include <system_error>

#include "base/check.h"
#include "engine/model/safetensors.h"
#include "gtest/gtest.h"
#include "kernels/types.h"

namespace bullpen {
namespace {

// Two runs of the tests at a time must not meet.
struct ScratchDirectory {
  ScratchDirectory()
      : path(std::filesystem::path(::testing::TempDir()) /
             ("bullpen_model_files_" + std::to_string(getpid()))) {
    MakeEmpty(path);
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  const std::filesystem::path path;
};

}  // namespace

std::filesystem::path ScratchPath(const std::string& name) {
  static const ScratchDirectory directory;
  return directory.path / name;
}

std::vector<FakeTensor> ReadTensors(const std::filesystem::path& path) {
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path);
  CHECK(file.ok()) << file.status();
  std::vector<FakeTensor> tensors;
  for (const auto& [name, info] : file->tensors()) {
    FakeTensor& tensor = tensors.emplace_back();
    tensor = {name, info.dtype, info.shape,
              std::string(static_cast<size_t>(info.bytes), '\0')};
    const absl::Status read =
        file->Read(info, 0, std::as_writable_bytes(std::span(tensor.bytes)));
    CHECK(read.ok()) << read;
  }
  return tensors;
}

void WriteTensors(const std::filesystem::path& path,
                  const std::vector<FakeTensor>& tensors) {
  nlohmann::ordered_json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const FakeTensor& tensor : tensors) {
    const size_t begin = data.size();
    data += tensor.bytes;
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {begin, data.size()}}};
  }
  WriteSafetensors(path, header.dump(), data);
}

void WriteSafetensors(const std::filesystem::path& path,
                      std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  WriteText(path, bytes + std::string(header) + std::string(data));
}

void WriteText(const std::filesystem::path& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  CHECK(file.good()) << "cannot write " << path;
}

std::string ReadText(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  CHECK(file.good()) << "cannot read " << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

nlohmann::json ReadJson(const std::filesystem::path& path) {
  return nlohmann::json::parse(ReadText(path));
}

std::string WidenedBytes(const FakeTensor& tensor) {
  const std::optional<kernels::DType> dtype = kernels::FindDType(tensor.dtype);
  CHECK(dtype.has_value()) << tensor.dtype;
  if (*dtype == kernels::DType::kF32) return tensor.bytes;
  std::string wide;
  for (size_t i = 0; i < tensor.bytes.size(); i += 2) {
    uint16_t bits;
    std::memcpy(&bits, tensor.bytes.data() + i, sizeof(bits));
    const float value = kernels::ToFloat(bits, *dtype);
    wide.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  return wide;
}

void MakeEmpty(const std::filesystem::path& path) {
  std::filesystem::remove_all(path);
  std::filesystem::create_directories(path);
}

void FlipByte(const std::filesystem::path& path, int64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(offset);
  const char byte = static_cast<char>(file.get());
  file.seekp(offset);
  file.put(static_cast<char>(byte ^ 0x10));
  file.close();
  CHECK(file.good()) << "cannot flip byte " << offset << " of " << path;
}

}  // namespace bullpen
