#include "engine/model/tokenizer.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

// A small model over single characters: a b c, "ab", "abc", a space.
json SmallModel() {
  return json::parse(R"({
    "added_tokens": [{"id": 9, "content": "<s>", "special": true,
                      "normalized": false}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null,
    "decoder": {"type": "Fuse"},
    "model": {"type": "BPE",
              "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, " ": 5},
              "merges": ["a b", ["ab", "c"]]}})");
}

class TokenizerTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() /
           ("bullpen_tokenizer_" + std::to_string(getpid()));
    std::filesystem::create_directories(dir_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  absl::StatusOr<std::unique_ptr<Tokenizer>> LoadText(const std::string& text) {
    std::ofstream(dir_ / "tokenizer.json") << text;
    return Tokenizer::FromDirectory(dir_);
  }

  std::unique_ptr<Tokenizer> Load(const json& document) {
    auto tokenizer = LoadText(document.dump());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return *std::move(tokenizer);
  }

  void ExpectRefused(const json& document, const std::string& part) {
    const absl::Status status = LoadText(document.dump()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(status.ToString(), HasSubstr(part));
  }

  std::filesystem::path dir_;
};

TEST_F(TokenizerTest, MergesInBothSpellingsByRank) {
  const auto tokenizer = Load(SmallModel());
  EXPECT_THAT(tokenizer->Encode("abcab", false), ElementsAre(4, 3));
  EXPECT_EQ(tokenizer->vocab_size(), 10);
  EXPECT_EQ(tokenizer->IdOf("abc"), 4);
  EXPECT_EQ(tokenizer->IdOf("<s>"), 9);
  EXPECT_EQ(tokenizer->IdOf("zz"), std::nullopt);
  EXPECT_TRUE(tokenizer->IsSpecial(9));
  EXPECT_FALSE(tokenizer->IsSpecial(4));
}

TEST_F(TokenizerTest, LongWordsMergeAsShortOnesDo) {
  json document = SmallModel();
  const auto tokenizer = Load(document);
  std::string text;
  Ids expected;
  for (int i = 0; i < 100; ++i) {
    text += i % 3 == 0 ? "abc" : "ab";
    expected.push_back(i % 3 == 0 ? 4 : 3);
  }
  EXPECT_EQ(tokenizer->Encode(text, false), expected);
}

TEST_F(TokenizerTest, UnspelledCharactersVanishWithoutUnknownToken) {
  EXPECT_THAT(Load(SmallModel())->Encode("aXb", false), ElementsAre(3));
}

TEST_F(TokenizerTest, UnknownTokenStandsForEachCharacterOrForARun) {
  json document = SmallModel();
  document["model"]["vocab"]["?"] = 6;
  document["model"]["unk_token"] = "?";
  EXPECT_THAT(Load(document)->Encode("aXYb", false), ElementsAre(0, 6, 6, 1));
  document["model"]["fuse_unk"] = true;
  EXPECT_THAT(Load(document)->Encode("aXYb", false), ElementsAre(0, 6, 1));
}

TEST_F(TokenizerTest, IgnoreMergesTakesAWholeWord) {
  json document = SmallModel();
  document["model"]["vocab"]["cab"] = 6;
  EXPECT_THAT(Load(document)->Encode("cab", false), ElementsAre(2, 3));
  document["model"]["ignore_merges"] = true;
  EXPECT_THAT(Load(document)->Encode("cab", false), ElementsAre(6));
}

TEST_F(TokenizerTest, BytesStandInForCharactersAndComeBack) {
  json document = SmallModel();
  document["model"]["byte_fallback"] = true;
  document["model"]["vocab"]["<0xC3>"] = 6;
  document["model"]["vocab"]["<0xA9>"] = 7;
  document["decoder"] = json::parse(
      R"({"type": "Sequence", "decoders": [
          {"type": "Replace", "pattern": {"String": "_"}, "content": " "},
          {"type": "ByteFallback"}, {"type": "Fuse"},
          {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})");
  const auto tokenizer = Load(document);
  const Ids ids = tokenizer->Encode("a\u00e9", false);
  EXPECT_THAT(ids, ElementsAre(0, 6, 7));
  EXPECT_EQ(tokenizer->Decode(ids, false), "a\u00e9");
  EXPECT_EQ(tokenizer->Decode(Ids{7, 6, 0}, false), "\uFFFD\uFFFDa");
  EXPECT_EQ(tokenizer->Decode(Ids{5, 5, 0}, false), " a");
  DecodeStream stream(*tokenizer, false);
  EXPECT_EQ(stream.Push(5), "");
  EXPECT_EQ(stream.Push(5), " ");
  EXPECT_EQ(stream.Push(6), "");
  EXPECT_EQ(stream.Push(7), "\u00e9");
  EXPECT_EQ(stream.Push(6), "");
  EXPECT_EQ(stream.Flush(), "\uFFFD");
}

TEST_F(TokenizerTest, TemplatesPutTokensAroundTheText) {
  json document = SmallModel();
  document["post_processor"] = json::parse(
      R"({"type": "Sequence", "processors": [
          {"type": "ByteLevel", "trim_offsets": false},
          {"type": "TemplateProcessing",
           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                      {"Sequence": {"id": "A", "type_id": 0}},
                      {"SpecialToken": {"id": "end", "type_id": 0}}],
           "special_tokens": {"<s>": {"id": "<s>", "ids": [9]},
                              "end": {"id": "end", "ids": [5, 5]}}}]})");
  const auto tokenizer = Load(document);
  EXPECT_THAT(tokenizer->Encode("ab", true), ElementsAre(9, 3, 5, 5));
  EXPECT_THAT(tokenizer->Encode("ab", false), ElementsAre(3));
  document["post_processor"]["processors"][1]["special_tokens"]["end"]["ids"] =
      {99};
  ExpectRefused(document, "id 99 > 9");
}

TEST_F(TokenizerTest, TemplatesOfOtherShapesAreRefused) {
  json document = SmallModel();
  json& processor = document["post_processor"];
  const json token = {{"SpecialToken", {{"id", "<s>"}}}};
  const json text = {{"Sequence", {{"id", "A"}}}};
  const json surround = {{"type", "TemplateProcessing"},
                         {"single", {token, text}},
                         {"special_tokens", {{"<s>", {{"ids", {9}}}}}}};
  processor = surround;
  processor["single"] = {text, token, text};
  ExpectRefused(document,
                "post_processor.single: has the Sequence 'A' 2 times");
  processor["single"] = {token};
  ExpectRefused(document,
                "post_processor.single: has the Sequence 'A' 0 times");
  processor["single"] = {token, {{"Sequence", {{"id", "B"}}}}};
  ExpectRefused(document, "post_processor.single[1].Sequence.id: 'B'");
  const json roberta = {
      {"type", "RobertaProcessing"}, {"cls", {"<s>", 9}}, {"sep", {"a", 0}}};
  for (const json& second : {surround, roberta}) {
    processor = {{"type", "Sequence"}, {"processors", {surround, second}}};
    ExpectRefused(document,
                  "post_processor.processors[1].type: '" +
                      second["type"].get<std::string>() +
                      "' after a processor that adds tokens is not supported");
  }
  const json moves_offsets = {{"type", "ByteLevel"}};
  processor["processors"] = {surround, moves_offsets};
  EXPECT_THAT(Load(document)->Encode("ab", true), ElementsAre(9, 3));
}

// Decoder steps by name.
json Decoder(const std::vector<std::string>& names) {
  const json space = {{"String", "_"}};
  json steps = json::array();
  for (const std::string& name : names) {
    json step = {{"type", name}};
    if (name == "Replace") step.update({{"pattern", space}, {"content", " "}});
    if (name == "Strip") step.update({{"start", 1}, {"stop", 0}});
    if (name == "Metaspace") step["replacement"] = "_";
    steps.push_back(std::move(step));
  }
  return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

TEST_F(TokenizerTest, DecoderStepsOutOfOrderAreRefused) {
  json document = SmallModel();
  for (const std::vector<std::string>& steps :
       std::vector<std::vector<std::string>>{
           {"Strip"},
           {"Replace", "Strip"},
           {"Replace", "ByteFallback", "Strip"},
           {"Replace", "Fuse", "Strip", "Fuse"},
           {"Fuse", "ByteFallback"},
           {"Fuse", "Replace"},
           {"Fuse", "Metaspace"},
           {"ByteFallback", "Replace"},
           {"ByteFallback", "Metaspace"},
           {"ByteFallback", "ByteFallback"},
           {"Replace", "Metaspace"},
           {"Metaspace", "Metaspace"},
           {"Fuse", "ByteLevel"},
           {"Replace", "ByteLevel"},
           {"ByteFallback", "ByteLevel"},
           {"ByteLevel", "Replace"},
       }) {
    document["decoder"] = Decoder(steps);
    const std::string place = steps.size() == 1
                                  ? "as the first step"
                                  : "after '" + steps[steps.size() - 2] + "'";
    ExpectRefused(document, "decoder.decoders[" +
                                std::to_string(steps.size() - 1) + "].type: '" +
                                steps.back() + "' " + place +
                                " is not supported");
  }
}

TEST_F(TokenizerTest, DecoderStepsInOrderAreTaken) {
  json document = SmallModel();
  document["model"]["vocab"]["_b"] = 6;
  const auto decoded = [&](const std::vector<std::string>& steps) {
    document["decoder"] = Decoder(steps);
    return Load(document)->Decode(Ids{6, 0, 6}, false);
  };
  EXPECT_EQ(decoded({}), "_ba_b");
  EXPECT_EQ(decoded({"ByteLevel"}), "_ba_b");
  EXPECT_EQ(decoded({"Replace", "Replace", "ByteFallback", "Fuse", "Fuse"}),
            " ba b");
  EXPECT_EQ(decoded({"Replace", "Fuse", "Strip"}), "ba b");
  EXPECT_EQ(decoded({"Metaspace", "Replace", "ByteFallback", "Fuse"}), "ba b");
  json never = Decoder({"Replace", "Metaspace"});
  never["decoders"][1]["prepend_scheme"] = "never";
  document["decoder"] = never;
  EXPECT_EQ(Load(document)->Decode(Ids{6, 0, 6}, false), " ba b");
  json nothing = Decoder({"Replace", "Strip", "Fuse", "Strip"});
  nothing["decoders"][1]["start"] = 0;
  document["decoder"] = nothing;
  EXPECT_EQ(Load(document)->Decode(Ids{6, 0, 6}, false), "ba b");
}

struct AddedCase {
  const char* flags;
  const char* text;
  Ids ids;
};

TEST_F(TokenizerTest, AddedTokensFollowTheirFlags) {
  const std::vector<AddedCase> cases = {
      {"{}", "a <x> b", {0, 5, 6, 5, 1}},
      {R"({"lstrip": true})", "a  <x> b", {0, 6, 5, 1}},
      {R"({"rstrip": true})", "a <x>  b", {0, 5, 6, 1}},
      {R"({"lstrip": true, "rstrip": true})", " <x> \n<x>a", {6, 6, 0}},
      {R"({"lstrip": true, "rstrip": true, "content": "\n\n"})",
       "a\n\n\n\nb",
       {0, 6, 1}},
      {R"({"single_word": true})", "a<x> <x>", {0, 5, 6}},
      {"{}", "<x><x>y<x", {6, 6}},
  };
  for (const AddedCase& test : cases) {
    json document = SmallModel();
    json token = {{"id", 6}, {"content", "<x>"}, {"normalized", false}};
    token.update(json::parse(test.flags));
    document["added_tokens"].push_back(token);
    EXPECT_EQ(Load(document)->Encode(test.text, false), test.ids)
        << test.flags << " " << test.text;
  }
}

// The reference does so, too: what stands behind the second is read twice.
TEST_F(TokenizerTest, ATokenWithinStrippedWhiteSpaceIsFoundThere) {
  json document = SmallModel();
  document["added_tokens"].push_back(
      {{"id", 6}, {"content", "<x>"}, {"normalized", false}, {"rstrip", true}});
  document["added_tokens"].push_back(
      {{"id", 7}, {"content", "\n"}, {"normalized", false}});
  EXPECT_THAT(Load(document)->Encode("<x>\n b", false),
              ElementsAre(6, 7, 5, 1));
}

TEST_F(TokenizerTest, TheLongestAddedTokenWins) {
  json document = SmallModel();
  document["added_tokens"].push_back({{"id", 6}, {"content", "ab"}});
  document["added_tokens"].push_back({{"id", 7}, {"content", "abca"}});
  document["model"]["vocab"] = {{"a", 0}, {"b", 1}, {"c", 2}};
  document["model"]["merges"] = json::array();
  EXPECT_THAT(Load(document)->Encode("abcabab", false), ElementsAre(7, 1, 6));
}

TEST_F(TokenizerTest, NormalizedAddedTokensAreFoundAfterNormalisation) {
  json document = SmallModel();
  document["normalizer"] = {{"type", "NFC"}};
  document["added_tokens"].push_back(
      {{"id", 6}, {"content", "e\u0301"}, {"normalized", true}});
  document["added_tokens"].push_back(
      {{"id", 7}, {"content", "o\u0301"}, {"normalized", false}});
  EXPECT_THAT(Load(document)->Encode("\u00e9e\u0301o\u0301\u00f3", false),
              ElementsAre(6, 6, 7));
}

TEST_F(TokenizerTest, UnsupportedPartsAreNamedWithTheSupportedOnes) {
  json document = SmallModel();
  document["model"]["type"] = "Unigram";
  ExpectRefused(document, "'Unigram' is not supported; supported are BPE");
  for (const char* part :
       {"normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    document = SmallModel();
    document[part] = {{"type", "Strange"}};
    ExpectRefused(document, "'Strange' is not supported; supported are");
    ExpectRefused(document, part);
  }
  document = SmallModel();
  document["pre_tokenizer"] = {{"type", "Split"},
                               {"pattern", {{"Regex", "[a&&]"}}},
                               {"behavior", "Isolated"}};
  ExpectRefused(document, "an empty character class");
  document["pre_tokenizer"]["pattern"]["Regex"] = "(";
  ExpectRefused(document, "regular expression '('");
}

TEST_F(TokenizerTest, BadVocabulariesAndMergesAreRefused) {
  json document = SmallModel();
  document["model"]["vocab"]["b"] = 0;
  ExpectRefused(document, "belongs to another token");
  document = SmallModel();
  document["model"]["vocab"]["b"] = 2000000000;
  ExpectRefused(document, "the limit");
  for (const json& id : {json(-1), json(1.5), json("1"), json(nullptr),
                         json(1ull << 40), json(~0ull)}) {
    document = SmallModel();
    document["model"]["vocab"]["b"] = id;
    ExpectRefused(document, "model.vocab['b']");
  }
  for (const json& merge : {json("a z"), json("a"), json("a b c"), json(1),
                            json({"a"}), json({"a", 1}), json(nullptr)}) {
    document = SmallModel();
    document["model"]["merges"].push_back(merge);
    ExpectRefused(document, "model.merges[2]");
  }
  document = SmallModel();
  document["model"]["unk_token"] = "nope";
  ExpectRefused(document, "unk_token");
  document = SmallModel();
  document["added_tokens"].push_back({{"id", 0}, {"content", "x"}});
  ExpectRefused(document, "belongs to 'a'");
}

TEST_F(TokenizerTest, WrongTypesAnywhereAreErrorsNotCrashes) {
  const json document = SmallModel();
  const std::vector<json> values = {nullptr,
                                    1,
                                    "x",
                                    -1.5,
                                    true,
                                    json::array(),
                                    json::object(),
                                    json::array({1}),
                                    json{{"type", "Sequence"}}};
  const json leaves = document.flatten();
  for (const auto& [path, leaf] : leaves.items()) {
    for (json::json_pointer at(path); !at.empty(); at = at.parent_pointer()) {
      for (const json& value : values) {
        json changed = document;
        changed[at] = value;
        const auto result = LoadText(changed.dump());
        if (result.ok()) (*result)->Encode("ab <s>", true);
      }
    }
  }
}

TEST_F(TokenizerTest, BrokenFilesAreErrors) {
  EXPECT_EQ(Tokenizer::FromDirectory(dir_ / "none").status().code(),
            absl::StatusCode::kNotFound);
  const std::string good = SmallModel().dump();
  for (size_t size = 0; size < good.size(); size += 7) {
    EXPECT_FALSE(LoadText(good.substr(0, size)).ok());
  }
  EXPECT_FALSE(LoadText(std::string(100000, '[')).ok());
  EXPECT_FALSE(LoadText("{\"model\": {\"vocab\": {\"\xff\": 1}}}").ok());
}

TEST_F(TokenizerTest, DeepSequencesAreRefused) {
  for (const auto& [part, list] : {std::pair("normalizer", "normalizers"),
                                   std::pair("pre_tokenizer", "pretokenizers"),
                                   std::pair("post_processor", "processors"),
                                   std::pair("decoder", "decoders")}) {
    json node = {{"type", "Sequence"}, {list, json::array()}};
    for (int i = 0; i < 100; ++i) {
      node = {{"type", "Sequence"}, {list, json::array({node})}};
    }
    json document = SmallModel();
    document[part] = node;
    ExpectRefused(document, "nested too deeply");
  }
}

class DefaultTokenizerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto tokenizer = Tokenizer::FromDirectory("models/default");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(DefaultTokenizerTest, HostileTextComesBackWhole) {
  std::string letters;
  std::mt19937 random(7);
  for (int i = 0; i < 100000; ++i) {
    letters += static_cast<char>('a' + random() % 26);
  }
  const auto repeat = [](const std::string& unit) {
    std::string text;
    while (text.size() < 100000) text += unit;
    return text;
  };
  for (const std::string& text :
       {letters, repeat("a"), repeat(" "), repeat(" ") + "x", repeat("\n"),
        repeat(" \n"), repeat("\u0301"), repeat("\u0301\u0323"), repeat("<"),
        repeat("<|im_"), repeat("\U0001F600"), repeat("'"), repeat("0")}) {
    const Ids ids = tokenizer_->Encode(text, false);
    EXPECT_EQ(tokenizer_->Decode(ids, false), text);
  }
}

TEST_F(DefaultTokenizerTest, InvalidUtf8IsReadAsReplacementCharacters) {
  EXPECT_EQ(tokenizer_->Encode("a\xff\xe4\xb8z", false),
            tokenizer_->Encode("a\uFFFD\uFFFDz", false));
}

TEST_F(DefaultTokenizerTest, UnknownIdsGiveNothing) {
  for (int32_t id : {-1, tokenizer_->vocab_size(), 2147483647, -2147483647}) {
    EXPECT_EQ(tokenizer_->TokenBytes(id), "");
    EXPECT_FALSE(tokenizer_->IsSpecial(id));
    EXPECT_EQ(tokenizer_->Decode(Ids{id}, false), "");
    DecodeStream stream(*tokenizer_, false);
    EXPECT_EQ(stream.Push(id), "");
  }
}

TEST_F(DefaultTokenizerTest, AStreamHoldsBackABoundedAmount) {
  std::optional<int32_t> lead;
  for (int32_t id = 0; id < tokenizer_->vocab_size(); ++id) {
    if (tokenizer_->TokenBytes(id) == "\xE4") lead = id;
  }
  ASSERT_TRUE(lead.has_value());
  DecodeStream stream(*tokenizer_, false);
  std::string given;
  for (int i = 0; i < 1000; ++i) given += stream.Push(*lead);
  EXPECT_GT(given.size(), 3 * 900u);
  given += stream.Flush();
  EXPECT_EQ(given, tokenizer_->Decode(Ids(1000, *lead), false));
}

TEST_F(DefaultTokenizerTest, RememberedWordsEncodeAsFreshOnes) {
  std::ifstream file("models/default/eval.txt");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const Ids once = tokenizer_->Encode(text, false);
  Ids twice = once;
  twice.insert(twice.end(), once.begin(), once.end());
  EXPECT_EQ(tokenizer_->Encode(text + "<|im_end|>" + text, false).size(),
            twice.size() + 1);
}

TEST_F(DefaultTokenizerTest, ThreadsEncodeAlike) {
  const std::string text = "The quick brown fox, caf\u00e9 123.";
  const Ids expected = tokenizer_->Encode(text, true);
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        EXPECT_EQ(tokenizer_->Encode(text, true), expected);
      }
    });
  }
}

}  // namespace
}  // namespace bullpen
