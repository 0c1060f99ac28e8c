#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace bullpen {

// The printable characters under which byte-level vocabularies (GPT-2's and
// all that follow it) spell the 256 bytes.
class ByteAlphabet {
 public:
  static const ByteAlphabet& Get();

  // The bytes that `spelling` stands for; nullopt if a character of it stands
  // for none.
  std::optional<std::string> Bytes(std::string_view spelling) const;
  std::string Spelling(std::string_view bytes) const;

 private:
  ByteAlphabet();

  std::array<int32_t, 256> code_points_;
  std::array<int16_t, 0x144> bytes_;  // by code point, -1: none
};

}  // namespace bullpen
