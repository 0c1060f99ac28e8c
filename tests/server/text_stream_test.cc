#include "server/text_stream.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

class TextStreamTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto tokenizer = Tokenizer::FromDirectory("models/default");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }
  static void TearDownTestSuite() { tokenizer_.reset(); }

  // Feeds one token a byte, so that any cut of the text occurs.
  static std::vector<int32_t> ByteTokens(const std::string& text) {
    std::vector<int32_t> ids;
    for (char c : text) {
      int32_t id = 0;
      while (tokenizer_->TokenBytes(id) != std::string(1, c)) ++id;
      ids.push_back(id);
    }
    return ids;
  }

  struct Result {
    std::vector<std::string> pieces;  // the last one is what Flush gave
    std::string text;
    bool stopped = false;
  };

  static Result Run(const std::vector<int32_t>& ids,
                    std::vector<std::string> stop) {
    TextStream stream(*tokenizer_, std::move(stop));
    Result result;
    for (int32_t id : ids) result.pieces.push_back(stream.Push(id));
    result.pieces.push_back(stream.Flush());
    for (const std::string& piece : result.pieces) result.text += piece;
    result.stopped = stream.stopped();
    return result;
  }

  static std::unique_ptr<const Tokenizer> tokenizer_;
};

std::unique_ptr<const Tokenizer> TextStreamTest::tokenizer_;

TEST_F(TextStreamTest, GivesEachTokenAtOnceWithoutStopStrings) {
  const Result result = Run(ByteTokens("abc"), {});
  EXPECT_EQ(result.pieces, (std::vector<std::string>{"a", "b", "c", ""}));
  EXPECT_FALSE(result.stopped);
}

TEST_F(TextStreamTest, StopStringSpansTokensAndNothingOfItLeaks) {
  const Result result = Run(ByteTokens("one STOP two"), {"STOP"});
  EXPECT_EQ(result.text, "one ");
  EXPECT_TRUE(result.stopped);
}

TEST_F(TextStreamTest, HeldTextIsGivenAsSoonAsItCannotBecomeAStopString) {
  const Result result = Run(ByteTokens("xSTxSTO"), {"STOP"});
  EXPECT_EQ(result.pieces,
            (std::vector<std::string>{"x", "", "", "STx", "", "", "", "STO"}));
  EXPECT_FALSE(result.stopped);
}

TEST_F(TextStreamTest, AStartThatFailedWithinATokenHoldsNothing) {
  const std::vector<int32_t> ids = tokenizer_->Encode("the", false);
  ASSERT_EQ(ids.size(), 1u);
  EXPECT_EQ(Run(ids, {"hx"}).pieces, (std::vector<std::string>{"the", ""}));
}

TEST_F(TextStreamTest, AFailedStartMayHoldTheNextStart) {
  EXPECT_EQ(Run(ByteTokens("aaaab!"), {"aab"}).text, "aa");
  EXPECT_EQ(Run(ByteTokens("ababac"), {"abac"}).text, "ab");
  // The longest start that "aabaaa" ends with begins with a shorter one.
  EXPECT_EQ(Run(ByteTokens("aabaaabaaac"), {"aabaaac"}).text, "aaba");
}

TEST_F(TextStreamTest, ThePrefixOfAnotherStopStringWins) {
  EXPECT_EQ(Run(ByteTokens("x<end>y"), {"<end>", "<end"}).text, "x");
}

TEST_F(TextStreamTest, OfStopStringsThatEndTogetherTheLongestWins) {
  EXPECT_EQ(Run(ByteTokens("abcd"), {"d", "bcd", "cd"}).text, "a");
}

TEST_F(TextStreamTest, TheFirstCompleteWinsHoweverTokensCutTheText) {
  const std::vector<std::string> stop = {"bcd", "c"};
  EXPECT_EQ(Run(ByteTokens("abcd"), stop).text, "ab");
  EXPECT_EQ(Run(tokenizer_->Encode("abcd", false), stop).text, "ab");
}

TEST_F(TextStreamTest, AnEmptyStopStringNeverStops) {
  const Result result = Run(ByteTokens("ab"), {""});
  EXPECT_EQ(result.text, "ab");
  EXPECT_FALSE(result.stopped);
}

TEST_F(TextStreamTest, StopStringsOfSeveralBytesACharacterMatchWhole) {
  const Result result = Run(ByteTokens("caf\u00e8 caf\u00e9 x"), {"\u00e9"});
  EXPECT_EQ(result.text, "caf\u00e8 caf");
  EXPECT_TRUE(result.stopped);
}

TEST_F(TextStreamTest, AnIncompleteCharacterAtTheEndIsTheReplacement) {
  EXPECT_EQ(Run(ByteTokens("a\xE4\xB8"), {"zz"}).text, "a\uFFFD");
}

TEST_F(TextStreamTest, NothingFollowsAStopString) {
  TextStream stream(*tokenizer_, {"b"});
  for (int32_t id : ByteTokens("ab")) stream.Push(id);
  ASSERT_TRUE(stream.stopped());
  for (int32_t id : ByteTokens("cd")) EXPECT_EQ(stream.Push(id), "");
  EXPECT_EQ(stream.Flush(), "");
}

TEST_F(TextStreamTest, SpecialTokensGiveNoText) {
  const std::optional<int32_t> end = tokenizer_->IdOf("<|im_end|>");
  ASSERT_TRUE(end.has_value());
  std::vector<int32_t> ids = ByteTokens("ab");
  ids.insert(ids.begin() + 1, *end);
  EXPECT_EQ(Run(ids, {}).text, "ab");
}

// Against the plain definition: the shortest prefix that ends in a stop string,
// less the longest of those.
TEST_F(TextStreamTest, AgreesWithTheDefinitionOnRandomText) {
  const uint32_t seed = 20260101;
  std::mt19937 random(seed);
  const auto word = [&](size_t longest) {
    std::string text(1 + random() % longest, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 2000; ++round) {
    const std::string text = word(24);
    const std::vector<std::string> stop = {word(6), word(4), word(5)};
    std::string expected = text;
    bool stopped = false;
    for (size_t end = 1; end <= text.size() && !stopped; ++end) {
      size_t longest = 0;
      for (const std::string& s : stop) {
        if (text.substr(0, end).ends_with(s)) {
          longest = std::max(longest, s.size());
        }
      }
      if (longest == 0) continue;
      expected = text.substr(0, end - longest);
      stopped = true;
    }
    const Result result = Run(ByteTokens(text), stop);
    ASSERT_EQ(result.text, expected) << "seed " << seed << " text " << text;
    ASSERT_EQ(result.stopped, stopped) << "seed " << seed << " text " << text;
    ASSERT_EQ(Run(tokenizer_->Encode(text, false), stop).text, expected);
  }
}

}  // namespace
}  // namespace bullpen
