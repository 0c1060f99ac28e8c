#include "engine/model/gguf_vocabulary.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/sentencepiece.pb.h"
#include "engine/model/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

constexpr char kFolder[] = "tests/golden/tokenizers/";

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// What a converter to GGUF writes of a tokenizer.json: all tokens by id, the
// added ones as control or user-defined.
GgufVocabulary FromTokenizerJson(const std::string& path,
                                 const std::string& pre) {
  const json root = json::parse(Read(path));
  GgufVocabulary vocabulary;
  vocabulary.model = "gpt2";
  vocabulary.pre = pre;
  const auto put = [&](const std::string& token, size_t id, int32_t type) {
    if (id >= vocabulary.tokens.size()) {
      vocabulary.tokens.resize(id + 1);
      vocabulary.types.resize(id + 1, 5);
    }
    vocabulary.tokens[id] = token;
    vocabulary.types[id] = type;
  };
  for (const auto& [token, id] : root["model"]["vocab"].items())
    put(token, id, 1);
  for (const json& token : root["added_tokens"]) {
    put(token["content"], token["id"], token["special"] ? 3 : 4);
  }
  for (const json& merge : root["model"]["merges"]) {
    vocabulary.merges.push_back(merge.is_string()
                                    ? merge.get<std::string>()
                                    : merge[0].get<std::string>() + " " +
                                          merge[1].get<std::string>());
  }
  return vocabulary;
}

GgufVocabulary FromSentencePiece(const std::string& path) {
  sentencepiece::Model model;
  EXPECT_TRUE(model.ParseFromString(Read(path)));
  GgufVocabulary vocabulary;
  vocabulary.model = "llama";
  for (const auto& piece : model.pieces()) {
    vocabulary.tokens.push_back(piece.piece());
    vocabulary.scores.push_back(piece.score());
    vocabulary.types.push_back(piece.type());
  }
  vocabulary.bos = 1;
  vocabulary.eos = 2;
  return vocabulary;
}

// a, b, "ab" and <s>, which begins and ends texts.
GgufVocabulary SmallGpt2() {
  GgufVocabulary vocabulary;
  vocabulary.model = "gpt2";
  vocabulary.tokens = {"a", "b", "ab", "<s>"};
  vocabulary.types = {1, 1, 1, 3};
  vocabulary.merges = {"a b"};
  vocabulary.bos = 3;
  vocabulary.eos = 3;
  return vocabulary;
}

class GgufVocabularyTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() /
           ("bullpen_gguf_vocabulary_" + std::to_string(getpid()));
    std::filesystem::create_directories(dir_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::unique_ptr<Tokenizer> Load(const GgufVocabulary& vocabulary) {
    const auto files = GgufTokenizerFiles(vocabulary);
    EXPECT_TRUE(files.ok()) << files.status();
    for (const DescriptionFile& file : *files) {
      std::ofstream(dir_ / file.name, std::ios::binary) << file.bytes;
    }
    auto tokenizer = Tokenizer::FromDirectory(dir_);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return *std::move(tokenizer);
  }

  // The lines whose text names no token that `left_out` finds.
  void ExpectGoldens(const Tokenizer& tokenizer, const std::string& name,
                     const std::string& left_out) {
    std::ifstream file(kFolder + name + ".jsonl");
    int lines = 0;
    for (std::string text; std::getline(file, text);) {
      const json line = json::parse(text);
      if (!line.contains("text")) continue;
      const auto input = line["text"].get<std::string>();
      if (!left_out.empty() && input.find(left_out) != std::string::npos) {
        continue;
      }
      const auto ids = line["ids"].get<Ids>();
      EXPECT_EQ(tokenizer.Encode(input, false), ids) << text.substr(0, 300);
      EXPECT_EQ(tokenizer.Decode(ids, false), line.value("decoded", input));
      ++lines;
    }
    EXPECT_GT(lines, 350);
  }

  void ExpectRefused(const GgufVocabulary& vocabulary,
                     const std::string& part) {
    const absl::Status status = GgufTokenizerFiles(vocabulary).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.ToString(), HasSubstr(part));
  }

  std::filesystem::path dir_;
};

TEST_F(GgufVocabularyTest, Gpt2KindsEncodeAsTheirOwnFile) {
  ExpectGoldens(*Load(FromTokenizerJson(LARGE_TOKENIZERS "qwen3/tokenizer.json",
                                        "qwen2")),
                "qwen3", "");
  ExpectGoldens(
      *Load(FromTokenizerJson(LARGE_TOKENIZERS "deepseek_v3/tokenizer.json",
                              "deepseek-v3")),
      "deepseek_v3", "");
}

// Control tokens are found in text here, where SentencePiece spells them.
TEST_F(GgufVocabularyTest, LlamaKindsEncodeAsTheirOwnFile) {
  const auto tokenizer = Load(
      FromSentencePiece(std::string(kFolder) + "mistral_v1/tokenizer.model"));
  ExpectGoldens(*tokenizer, "mistral_v1", "<");
  EXPECT_THAT(tokenizer->Encode("<s>a</s>", false), ElementsAre(1, 264, 2));
  EXPECT_THAT(tokenizer->Encode("a", true), ElementsAre(1, 264));
  EXPECT_EQ(tokenizer->Decode(Ids{1, 264, 2}, true), "a");
}

// Fine-tuned Mixtrals have their <|im_start|> so. What follows such a token
// begins with a space, as a text does, and before it there is none.
TEST_F(GgufVocabularyTest, UserDefinedTokensAreFoundInTheText) {
  GgufVocabulary vocabulary =
      FromSentencePiece(std::string(kFolder) + "mistral_v1/tokenizer.model");
  const auto id = static_cast<int32_t>(vocabulary.tokens.size());
  vocabulary.tokens.insert(vocabulary.tokens.end(), {"<tool>", "  x"});
  vocabulary.scores.insert(vocabulary.scores.end(), {-1000, -1000});
  vocabulary.types.insert(vocabulary.types.end(), {4, 4});
  const auto tokenizer = Load(vocabulary);
  EXPECT_THAT(tokenizer->Encode("<tool>a<tool>", false),
              ElementsAre(id, 264, id));
  EXPECT_THAT(tokenizer->Encode("a  xa", false), ElementsAre(264, id + 1, 264));
  EXPECT_EQ(tokenizer->Decode(Ids{264, id, 264}, true), "a<tool> a");
}

TEST_F(GgufVocabularyTest, FlagsSayWhatSurroundsAText) {
  GgufVocabulary vocabulary =
      FromSentencePiece(std::string(kFolder) + "mistral_v1/tokenizer.model");
  vocabulary.add_bos = false;
  vocabulary.add_eos = true;
  EXPECT_THAT(Load(vocabulary)->Encode("a", true), ElementsAre(264, 2));
  vocabulary.add_space_prefix = false;
  EXPECT_THAT(Load(vocabulary)->Encode("a", true), ElementsAre(28708, 2));

  vocabulary = SmallGpt2();
  vocabulary.pre = "gpt-2";
  vocabulary.add_bos = true;
  vocabulary.add_eos = true;
  EXPECT_THAT(Load(vocabulary)->Encode("ab", true), ElementsAre(3, 2, 3));
  EXPECT_THAT(Load(vocabulary)->Encode("a<s>b", false), ElementsAre(0, 3, 1));
  vocabulary.add_bos.reset();
  EXPECT_THAT(Load(vocabulary)->Encode("ab", true), ElementsAre(2, 3));
  vocabulary.pre = "llama-bpe";
  EXPECT_THAT(Load(vocabulary)->Encode("ab", true), ElementsAre(3, 2, 3));
}

// GLM-4.5's " 王" is such a token.
TEST_F(GgufVocabularyTest, ATokenThatNoMergesMakeIsFoundWhole) {
  GgufVocabulary vocabulary = SmallGpt2();
  vocabulary.tokens.emplace_back("aba");
  vocabulary.types.push_back(1);
  vocabulary.pre = "qwen2";
  EXPECT_THAT(Load(vocabulary)->Encode("aba", false), ElementsAre(2, 0));
  for (const char* pre : {"llama-bpe", "tekken", "glm4"}) {
    vocabulary.pre = pre;
    EXPECT_THAT(Load(vocabulary)->Encode("aba", false), ElementsAre(4)) << pre;
  }
}

TEST_F(GgufVocabularyTest, TheTemplateAndItsTokensAreKept) {
  GgufVocabulary vocabulary = SmallGpt2();
  vocabulary.chat_template = "{{ bos_token }}";
  const auto files = GgufTokenizerFiles(vocabulary);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(files->back().name, "tokenizer_config.json");
  const json config = json::parse(files->back().bytes);
  EXPECT_EQ(config, json::parse(R"({"bos_token": "<s>", "eos_token": "<s>",
                                    "chat_template": "{{ bos_token }}"})"));
}

TEST_F(GgufVocabularyTest, WrongMetadataAreNamed) {
  const GgufVocabulary good = SmallGpt2();
  GgufVocabulary bad = good;
  bad.model = "t5";
  ExpectRefused(bad, "'t5' is not supported; supported are gpt2, llama");
  bad = good;
  bad.pre = "strange";
  ExpectRefused(bad, "'strange' is not supported; supported are default");
  bad = good;
  bad.tokens.clear();
  ExpectRefused(bad, "tokens: is missing");
  bad = good;
  bad.types = {1};
  ExpectRefused(bad, "token_type: has 1 entries for 4 tokens");
  bad.types = {1, 7, 1, 1};
  ExpectRefused(bad, "token_type: 7 of token 1");
  bad = good;
  bad.bos = 4;
  ExpectRefused(bad, "bos_token_id: 4 is not one of 4 tokens");
  bad.bos = -1;
  ExpectRefused(bad, "bos_token_id: -1");
  bad = good;
  bad.merges.push_back("ab");
  ExpectRefused(bad, "merges: entry 1");
  bad = good;
  bad.tokens[1] = "\xff";
  ExpectRefused(bad, "tokens: entry 1 is not UTF-8");
  bad = good;
  bad.model = "llama";
  ExpectRefused(bad, "scores: is missing");
}

}  // namespace
}  // namespace bullpen
