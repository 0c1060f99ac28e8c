#include "tests/fakes/gguf_writer.h"

namespace bullpen {

GgufBytes& GgufBytes::Start(uint64_t tensors, uint64_t keys, uint32_t version) {
  bytes_ += "GGUF";
  return Number(version).Number(tensors).Number(keys);
}

GgufBytes& GgufBytes::Key(std::string_view key, std::string_view text) {
  return String(key).Number<uint32_t>(8).String(text);
}

GgufBytes& GgufBytes::Key(std::string_view key, uint32_t value) {
  return String(key).Number<uint32_t>(4).Number(value);
}

GgufBytes& GgufBytes::Tensor(std::string_view name, std::vector<uint64_t> dims,
                             uint32_t type, uint64_t offset) {
  String(name).Number(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) Number(dim);
  return Number(type).Number(offset);
}

GgufBytes& GgufBytes::PadTo(size_t alignment) {
  while (bytes_.size() % alignment != 0) bytes_ += '\0';
  return *this;
}

}  // namespace bullpen
