#include "engine/model/normalizer.h"

#include <string>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

std::string Apply(Normalizer::Step step, std::string_view text) {
  Normalizer normalizer;
  normalizer.Add(std::move(step));
  std::string storage;
  return std::string(normalizer.Apply(text, storage));
}

std::string Nfc(std::string_view text) {
  return Apply(Normalizer::Form::kNfc, text);
}

TEST(NormalizerTest, ComposesAndOrdersMarks) {
  EXPECT_EQ(Nfc("e\u0301"), "\u00e9");
  EXPECT_EQ(Nfc("s\u0307\u0323"), "\u1e69");
  EXPECT_EQ(Nfc("\u212b \u0958"), "\u00c5 \u0915\u093c");
  EXPECT_EQ(Nfc("\u1112\u1161\u11ab"), "\ud55c");
}

TEST(NormalizerTest, FormsDiffer) {
  EXPECT_EQ(Apply(Normalizer::Form::kNfd, "\u00e9"), "e\u0301");
  EXPECT_EQ(Apply(Normalizer::Form::kNfkc, "\ufb01\u00b2"), "fi2");
  EXPECT_EQ(Apply(Normalizer::Form::kNfkd, "\u1e9b\u0323"), "s\u0323\u0307");
}

// U+0898 is a mark since Unicode 14, which the reference does not know.
TEST(NormalizerTest, MarksThatTheReferenceDoesNotKnowStayInPlace) {
  EXPECT_EQ(Nfc("x\u0898\u0323"), "x\u0898\u0323");
  EXPECT_EQ(Nfc("e\u0898\u0301"), "e\u0898\u0301");
}

TEST(NormalizerTest, TheEmptyTrailingJamoIsKept) {
  EXPECT_EQ(Nfc("\uac00\u11a7\u11a8"), "\uac00\u11a7\u11a8");
}

TEST(NormalizerTest, ReplacesAndPrepends) {
  EXPECT_EQ(Apply(Normalizer::Replace{" ", "\u2581"}, " a  b"),
            "\u2581a\u2581\u2581b");
  EXPECT_EQ(Apply(Normalizer::Prepend{"\u2581"}, "a"), "\u2581a");
  EXPECT_EQ(Apply(Normalizer::Prepend{"\u2581"}, ""), "");
}

TEST(NormalizerTest, StepsRunInOrder) {
  Normalizer normalizer;
  normalizer.Add(Normalizer::Prepend{"_"});
  normalizer.Add(Normalizer::Replace{"_", "e"});
  normalizer.Add(Normalizer::Form::kNfc);
  std::string storage;
  EXPECT_EQ(normalizer.Apply("\u0301_", storage), "\u00e9e");
}

}  // namespace
}  // namespace bullpen
