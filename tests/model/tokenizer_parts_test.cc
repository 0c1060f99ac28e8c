#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "engine/model/tokenizer.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

constexpr char kFolder[] = "tests/golden/tokenizers/parts/";

// What each id adds to the text; what is left at the end goes to the last.
std::vector<std::string> Stream(const Tokenizer& tokenizer, const Ids& ids) {
  DecodeStream stream(tokenizer, false);
  std::vector<std::string> pieces;
  for (const int32_t id : ids) pieces.push_back(stream.Push(id));
  if (!pieces.empty()) pieces.back() += stream.Flush();
  return pieces;
}

// Small tokenizers that use the parts of tokenizer.json and the options of
// SentencePiece one by one, or put together as published ones are, with what
// those libraries make of random text. The makers are tests/golden/make/
// {tokenizer,sentencepiece}_parts.py and published_tokenizers.py.
class TokenizerParts : public testing::TestWithParam<std::string> {};

TEST_P(TokenizerParts, EncodesAndDecodesAsTheLibraryDoes) {
  const std::string folder = kFolder + GetParam();
  const auto tokenizer = Tokenizer::FromDirectory(folder);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::ifstream file(folder + "/cases.jsonl");
  int lines = 0;
  for (std::string text; std::getline(file, text); ++lines) {
    const json line = json::parse(text);
    const auto ids = line["ids"].get<Ids>();
    const auto special =
        line.contains("special") ? line["special"].get<Ids>() : ids;
    if (line.contains("text")) {
      const auto input = line["text"].get<std::string>();
      EXPECT_EQ((*tokenizer)->Encode(input, false), ids) << text;
      EXPECT_EQ((*tokenizer)->Encode(input, true), special) << text;
    }
    const std::string decoded =
        line.contains("decoded") ? line["decoded"] : line["text"];
    // SentencePiece's files say what the ids without BOS decode to.
    const Ids& whole = GetParam().starts_with("sp_") ? ids : special;
    EXPECT_EQ((*tokenizer)->Decode(whole, false), decoded) << text;
    EXPECT_EQ((*tokenizer)->Decode(whole, true),
              line.value("decoded_skip", decoded))
        << text;
    // A whole run of broken bytes becomes U+FFFD, which a stream cannot know
    // at its beginning.
    if (decoded.find("\uFFFD") != std::string::npos) continue;
    const std::vector<std::string> pieces = Stream(**tokenizer, whole);
    EXPECT_EQ(absl::StrJoin(pieces, ""), decoded) << text;
    if (!line.contains("pieces")) continue;
    EXPECT_EQ(pieces, line["pieces"].get<std::vector<std::string>>()) << text;
  }
  EXPECT_GT(lines, 50);
}

INSTANTIATE_TEST_SUITE_P(
    Made, TokenizerParts,
    testing::Values("added", "bert", "byte_normalizer", "cl100k", "delimiter",
                    "digits", "gpt2", "kimi", "llama2", "llama3",
                    "metaspace_always_split", "metaspace_always_whole",
                    "metaspace_first_split", "metaspace_first_whole",
                    "metaspace_never_split", "metaspace_never_whole", "o200k",
                    "words", "sp_user", "sp_strip", "sp_no_prefix", "sp_ids",
                    "sp_nfkc", "pub_chatml_llama2", "pub_deepseek_v2",
                    "pub_ernie", "pub_gemma", "pub_glm4", "pub_gpt_oss",
                    "pub_granite", "pub_llama3", "pub_minimax",
                    "pub_mistral_v3", "pub_mixtral", "pub_olmo", "pub_phi3",
                    "pub_phi4", "pub_qwen3"),
    [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bullpen
