#include "engine/model/byte_alphabet.h"

#include "engine/model/utf8.h"

namespace bullpen {

const ByteAlphabet& ByteAlphabet::Get() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

ByteAlphabet::ByteAlphabet() {
  bytes_.fill(-1);
  // Printable Latin-1 stands for itself; the others follow from U+0100.
  int32_t next = 0x100;
  for (int32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) ||
                           (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
    const int32_t point = printable ? byte : next++;
    code_points_[byte] = point;
    bytes_[point] = static_cast<int16_t>(byte);
  }
}

std::optional<std::string> ByteAlphabet::Bytes(
    std::string_view spelling) const {
  std::string bytes;
  for (size_t pos = 0; pos < spelling.size();) {
    const Utf8Step step = NextUtf8(spelling, pos);
    pos += step.bytes;
    const auto point = static_cast<size_t>(step.code_point);
    if (step.kind != Utf8Step::kCharacter || point >= bytes_.size() ||
        bytes_[point] < 0) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(bytes_[point]));
  }
  return bytes;
}

std::string ByteAlphabet::Spelling(std::string_view bytes) const {
  std::string spelling;
  for (char byte : bytes) {
    AppendUtf8(code_points_[static_cast<unsigned char>(byte)], spelling);
  }
  return spelling;
}

}  // namespace bullpen
