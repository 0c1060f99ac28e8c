#include "engine/model/split_pattern.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

using testing::ElementsAre;

std::vector<std::string> Pieces(const SplitPattern& pattern,
                                std::string_view text) {
  std::vector<std::string_view> pieces;
  pattern.Split(std::vector<std::string_view>{text}, pieces);
  return {pieces.begin(), pieces.end()};
}

std::vector<std::string> RegexPieces(std::string_view expression,
                                     std::string_view text,
                                     SplitPattern::Options options = {}) {
  auto pattern = SplitPattern::Regex(expression, options);
  EXPECT_TRUE(pattern.ok()) << pattern.status();
  return Pieces(*pattern, text);
}

TEST(SplitPatternTest, BehavioursAreThoseOfTokenizers) {
  const std::string text = "the-final--countdown";
  const auto split = [&](SplitBehavior behavior) {
    const auto pieces = RegexPieces("-", text, {.behavior = behavior});
    EXPECT_EQ(pieces,
              Pieces(SplitPattern::Literal("-", {.behavior = behavior}), text));
    return pieces;
  };
  EXPECT_THAT(split(SplitBehavior::kRemoved),
              ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(split(SplitBehavior::kIsolated),
              ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(split(SplitBehavior::kMergedWithPrevious),
              ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(split(SplitBehavior::kMergedWithNext),
              ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(split(SplitBehavior::kContiguous),
              ElementsAre("the", "-", "final", "--", "countdown"));
}

TEST(SplitPatternTest, InvertedTheMatchesAreKept) {
  EXPECT_THAT(
      RegexPieces("[a-z]+", "ab 12 c",
                  {.behavior = SplitBehavior::kRemoved, .invert = true}),
      ElementsAre("ab", "c"));
}

TEST(SplitPatternTest, EmptyMatchesCut) {
  EXPECT_THAT(RegexPieces("x*", "axb\u00e9"),
              ElementsAre("a", "x", "b", "\u00e9"));
  for (const SplitBehavior behavior :
       {SplitBehavior::kIsolated, SplitBehavior::kRemoved,
        SplitBehavior::kContiguous, SplitBehavior::kMergedWithPrevious,
        SplitBehavior::kMergedWithNext}) {
    EXPECT_THAT(RegexPieces("(?=(\\d{3})+(?!\\d))", "a 1234567b",
                            {.behavior = behavior}),
                ElementsAre("a 1", "234", "567b"));
  }
  EXPECT_THAT(RegexPieces("x*", "axb\u00e9",
                          {.behavior = SplitBehavior::kMergedWithPrevious}),
              ElementsAre("ax", "b", "\u00e9"));
}

TEST(SplitPatternTest, EmptyMatchesAreReplacedButNotBehindAnother) {
  const auto replaced = [](std::string_view expression, std::string_view text) {
    auto pattern = SplitPattern::Regex(expression, {});
    EXPECT_TRUE(pattern.ok()) << pattern.status();
    return pattern->Replace(text, "#");
  };
  EXPECT_EQ(replaced("x*", "axxb"), "#a#b#");
  EXPECT_EQ(replaced("x*", "a\u00e9"), "#a#\u00e9#");
  EXPECT_EQ(replaced("\\b", "ab cd"), "#ab# #cd#");
  EXPECT_EQ(replaced("(?=a)", "bab"), "b#ab");
  EXPECT_EQ(replaced("$", "ab"), "ab#");
}

TEST(SplitPatternTest, WordsHoldTheirMarksAndEndBehindThem) {
  EXPECT_THAT(RegexPieces("\\b", "e\u0301a b"),
              ElementsAre("e\u0301a", " ", "b"));
  EXPECT_THAT(RegexPieces("\\B", "e\u0301a b"),
              ElementsAre("e", "\u0301", "a b"));
  EXPECT_THAT(RegexPieces("\\w+", "a\U0001F130b"), ElementsAre("a\U0001F130b"));
}

// Not its extensions: U+3002 is of the script Common, used with Han.
TEST(SplitPatternTest, WordsHoldTheNumbersOfLatin1) {
  EXPECT_THAT(RegexPieces("\\w+", "x\u00B2\u00BD \u2075"),
              ElementsAre("x\u00B2\u00BD", " \u2075"));
}

TEST(SplitPatternTest, AScriptIsThatOfTheCharacter) {
  EXPECT_THAT(RegexPieces("\\p{Han}+", "\u4f60\u597d\u3002ab"),
              ElementsAre("\u4f60\u597d", "\u3002ab"));
  EXPECT_THAT(RegexPieces("\\P{Han}", "\u4f60\u3002"),
              ElementsAre("\u4f60", "\u3002"));
  EXPECT_THAT(RegexPieces("[\\p{^Han}]", "\u4f60\u3002"),
              ElementsAre("\u4f60", "\u3002"));
  EXPECT_THAT(RegexPieces("[\\p{Han}\\p{Katakana}]+", "\u3005\u30FC\u30AB"),
              ElementsAre("\u3005", "\u30FC", "\u30AB"));
}

TEST(SplitPatternTest, WhiteSpaceIsUnicodes) {
  EXPECT_THAT(RegexPieces("\\s+", "a\u0085\u3000\tb\u180Ec"),
              ElementsAre("a", "\u0085\u3000\t", "b\u180Ec"));
  EXPECT_THAT(RegexPieces("[\\s.]", "a.\u00a0"),
              ElementsAre("a", ".", "\u00a0"));
}

TEST(SplitPatternTest, DollarEndsEachLineAndDotStopsThere) {
  EXPECT_THAT(RegexPieces("b$", "ab\nb"), ElementsAre("a", "b", "\n", "b"));
  EXPECT_THAT(RegexPieces(".+", "ab\r\nc"), ElementsAre("ab\r", "\n", "c"));
}

TEST(SplitPatternTest, CaselessMatchesFoldUnicode) {
  EXPECT_THAT(RegexPieces("(?i:'s)", "'S'\u017f"),
              ElementsAre("'S", "'\u017f"));
}

TEST(SplitPatternTest, OtherSpellingsOfOnigurumaAreTranslated) {
  EXPECT_THAT(RegexPieces("[\\u4e00-\\u9fa5]", "a\u4e2d"),
              ElementsAre("a", "\u4e2d"));
  EXPECT_THAT(RegexPieces("\\h+", "xyz1f"), ElementsAre("xyz", "1f"));
  EXPECT_THAT(RegexPieces("\\w+", "a\u0301_-"), ElementsAre("a\u0301_", "-"));
}

TEST(SplitPatternTest, ClassesHoldSetsOfClasses) {
  EXPECT_THAT(RegexPieces("[\\p{L}&&[^\\p{Han}]]+", "ab\u4e2dc"),
              ElementsAre("ab", "\u4e2d", "c"));
  EXPECT_THAT(RegexPieces("[\\p{L}&&a-f]+", "abxyf"),
              ElementsAre("ab", "xy", "f"));
  EXPECT_THAT(RegexPieces("[a[bc]]+", "abcd"), ElementsAre("abc", "d"));
  EXPECT_THAT(RegexPieces("[^a[bc]]+", "abcdxy"), ElementsAre("abc", "dxy"));
  EXPECT_THAT(RegexPieces("[^\\W]+", "ab,c"), ElementsAre("ab", ",", "c"));
  EXPECT_THAT(RegexPieces("[]a]+", "x]a"), ElementsAre("x", "]a"));
}

TEST(SplitPatternTest, IntervalsAreNotPossessive) {
  EXPECT_THAT(RegexPieces("\\p{N}{1,3}+", "a1234567"),
              ElementsAre("a", "1234567"));
  EXPECT_THAT(RegexPieces("(?:ab|c){2}+", "xcabcabx"),
              ElementsAre("x", "cabcab", "x"));
  EXPECT_THAT(RegexPieces("a{,2}", "aaa"), ElementsAre("aa", "a"));
  EXPECT_THAT(RegexPieces("a{x", "a{x"), ElementsAre("a{x"));
  EXPECT_THAT(RegexPieces("a++b", "aab"), ElementsAre("aab"));
}

TEST(SplitPatternTest, LongNamesAndRubysFlagsAreKnown) {
  EXPECT_THAT(RegexPieces("\\p{Uppercase_Letter}|\\p{^Letter}", "aB1"),
              ElementsAre("a", "B", "1"));
  EXPECT_THAT(RegexPieces("(?m:a.)", "xa\ny"), ElementsAre("x", "a\n", "y"));
}

// Unicode 15 and 16: emoji, digits, letters, ideographs.
TEST(SplitPatternTest, CharactersThatPcre2DoesNotKnowHaveTheirCategory) {
  EXPECT_THAT(RegexPieces("\\p{S}+", "a\U0001FA77b"),
              ElementsAre("a", "\U0001FA77", "b"));
  EXPECT_THAT(RegexPieces("\\p{N}", "\U0001D2C1x"),
              ElementsAre("\U0001D2C1", "x"));
  EXPECT_THAT(RegexPieces("\\p{Han}", "\U00031350x\u1C89"),
              ElementsAre("\U00031350", "x\u1C89"));
  EXPECT_THAT(RegexPieces("\\p{Lu}", "x\u1C89"), ElementsAre("x", "\u1C89"));
  EXPECT_THAT(RegexPieces("\\p{M}", "x\u0CF3"), ElementsAre("x", "\u0CF3"));
}

TEST(SplitPatternTest, WhatHasNoTranslationIsRefused) {
  for (const char* expression :
       {"[a&&]", "\\uZZ", "a\\", "(", "[", "*", "[a", "\\p{L", "\\p{Nope}"}) {
    EXPECT_EQ(SplitPattern::Regex(expression, {}).status().code(),
              absl::StatusCode::kInvalidArgument)
        << expression;
  }
}

TEST(SplitPatternTest, AnExpressionThatExplodesLeavesTheRestWhole) {
  const std::string text = std::string(40, 'a') + "!";
  EXPECT_THAT(RegexPieces("(a|a)*\\z", text), ElementsAre(text));
}

}  // namespace
}  // namespace bullpen
