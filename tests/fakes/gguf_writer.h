#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace bullpen {

// Builds a GGUF file byte by byte, right or wrong, as a test says.
class GgufBytes {
 public:
  template <typename T>
  GgufBytes& Number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  GgufBytes& String(std::string_view text) {
    Number<uint64_t>(text.size());
    bytes_ += text;
    return *this;
  }
  // Magic, version 3 and the two counts.
  GgufBytes& Start(uint64_t tensors, uint64_t keys, uint32_t version = 3);
  GgufBytes& Key(std::string_view key, std::string_view text);
  GgufBytes& Key(std::string_view key, uint32_t value);
  GgufBytes& Tensor(std::string_view name, std::vector<uint64_t> dims,
                    uint32_t type, uint64_t offset);
  GgufBytes& PadTo(size_t alignment);
  GgufBytes& Data(size_t count) {
    bytes_.append(count, '\x11');
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace bullpen
