#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "engine/model/tokenizer.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

using nlohmann::json;

constexpr char kFolder[] = "tests/golden/tokenizers/";

struct Case {
  std::string name;
  std::string directory;  // of the tokenizer's file
  bool sentencepiece = false;
};

std::string FieldOr(const json& line, const char* key,
                    const std::string& fallback) {
  return line.contains(key) ? line[key].get<std::string>() : fallback;
}

// The files of tests/golden/tokenizers; its README describes the fields.
class TokenizerGolden : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    auto tokenizer = Tokenizer::FromDirectory(GetParam().directory);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    std::ifstream file(kFolder + GetParam().name + ".jsonl");
    for (std::string line; std::getline(file, line);) {
      lines_.push_back(json::parse(line));
    }
    ASSERT_GE(lines_.size(), 390u);
  }

  std::string Context(const json& line) const {
    return line.dump(-1, ' ', true).substr(0, 300);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<json> lines_;
};

TEST_P(TokenizerGolden, EncodesEveryLine) {
  for (const json& line : lines_) {
    if (!line.contains("text")) continue;
    const auto text = line["text"].get<std::string>();
    const auto ids = line["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer_->Encode(text, false), ids) << Context(line);
    EXPECT_EQ(tokenizer_->Encode(text, true),
              line.contains("ids_special")
                  ? line["ids_special"].get<std::vector<int32_t>>()
                  : ids)
        << Context(line);
  }
}

// SentencePiece's own lines say what the ids without BOS decode to.
TEST_P(TokenizerGolden, DecodesEveryLine) {
  for (const json& line : lines_) {
    const bool special =
        line.contains("ids_special") && !GetParam().sentencepiece;
    const auto ids =
        line[special ? "ids_special" : "ids"].get<std::vector<int32_t>>();
    const std::string decoded =
        FieldOr(line, "decoded", FieldOr(line, "text", ""));
    EXPECT_EQ(tokenizer_->Decode(ids, false), decoded) << Context(line);
    EXPECT_EQ(tokenizer_->Decode(ids, true),
              FieldOr(line, "decoded_skip", decoded))
        << Context(line);
  }
}

// Pieces agree one by one where the text has no U+FFFD; the library holds a
// genuine one back, so there only the joined text has to agree.
TEST_P(TokenizerGolden, StreamsEveryLine) {
  int compared = 0;
  for (const json& line : lines_) {
    const auto ids = line["ids"].get<std::vector<int32_t>>();
    for (const bool skip : {false, true}) {
      const std::string whole = tokenizer_->Decode(ids, skip);
      const bool broken = whole.find("\uFFFD") != std::string::npos;
      DecodeStream stream(*tokenizer_, skip);
      std::vector<std::string> pieces;
      std::string joined;
      for (int32_t id : ids) {
        pieces.push_back(stream.Push(id));
        joined += pieces.back();
      }
      joined += stream.Flush();
      EXPECT_EQ(joined, whole) << Context(line);
      const char* key =
          skip && line.contains("pieces_skip") ? "pieces_skip" : "pieces";
      if (broken || !line.contains(key)) continue;
      EXPECT_EQ(pieces, line[key].get<std::vector<std::string>>())
          << Context(line);
      ++compared;
    }
  }
  EXPECT_GE(compared, GetParam().sentencepiece ? 0 : 100);
}

INSTANTIATE_TEST_SUITE_P(
    Families, TokenizerGolden,
    testing::Values(
        Case{"default", "models/default"},
        Case{"qwen3", LARGE_TOKENIZERS "qwen3"},
        Case{"deepseek_v3", LARGE_TOKENIZERS "deepseek_v3"},
        Case{"mistral_v1", std::string(kFolder) + "mistral_v1", true},
        Case{"mistral_v3", std::string(kFolder) + "mistral_v3", true}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace bullpen
