#include "tests/fuzz/use_tokenizer.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/model/tokenizer.h"

namespace bullpen {
namespace {

// Expressions of a hostile file may take long; their limits are tested apart.
constexpr size_t kTextBytes = 200;

void Use(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool special : {false, true}) {
    const std::vector<int32_t> ids = tokenizer.Encode(text, special);
    const std::string whole = tokenizer.Decode(ids, special);
    DecodeStream stream(tokenizer, special);
    std::string joined;
    for (const int32_t id : ids) {
      CHECK(id >= 0 && id < tokenizer.vocab_size());
      joined += stream.Push(id);
    }
    joined += stream.Flush();
    CHECK(joined.size() <= whole.size() + 4 * text.size() + 64);
  }
}

}  // namespace

void UseTokenizer(absl::StatusOr<TokenizerParts> parts,
                  std::string_view bytes) {
  if (!parts.ok()) return;
  const auto tokenizer = Tokenizer::FromParts(*std::move(parts));
  if (!tokenizer.ok()) return;
  Use(**tokenizer, "Hello, world! caf\u00e9 e\u0301 12345\n\n \u4f60\u597d");
  Use(**tokenizer, bytes.substr(0, kTextBytes));
}

}  // namespace bullpen
