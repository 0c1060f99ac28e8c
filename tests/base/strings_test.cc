#include "base/strings.h"

#include <gtest/gtest.h>

namespace bullpen {
namespace {

TEST(ParseBytesTest, UnitsOfBothKinds) {
  EXPECT_EQ(ParseBytes("4096").value(), 4096);
  EXPECT_EQ(ParseBytes("0").value(), 0);
  EXPECT_EQ(ParseBytes("7B").value(), 7);
  EXPECT_EQ(ParseBytes("512MiB").value(), int64_t{512} << 20);
  EXPECT_EQ(ParseBytes("12GiB").value(), int64_t{12} << 30);
  EXPECT_EQ(ParseBytes("12G").value(), int64_t{12} << 30);
  EXPECT_EQ(ParseBytes("1.5GB").value(), 1500000000);
  EXPECT_EQ(ParseBytes("2TiB").value(), int64_t{2} << 40);
  EXPECT_EQ(ParseBytes("0.5KiB").value(), 512);
}

TEST(ParseBytesTest, BadTextIsNamed) {
  for (std::string_view bad :
       {"", "GiB", "-1", "-1GiB", "12 GiB", " 12GiB", "12GiB ", "12gib", "nan",
        "inf", "infGiB", "1e400", "99999999999TiB", "0x10", "1.2.3",
        "12GiBs"}) {
    const absl::StatusOr<int64_t> parsed = ParseBytes(bad);
    ASSERT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument)
        << "'" << bad << "'";
    EXPECT_NE(parsed.status().message().find(Absl(bad)),
              absl::string_view::npos);
  }
}

TEST(FormatBytesTest, ThreeSignificantPlacesOrSo) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(1234567), "1.18 MiB");
  EXPECT_EQ(FormatBytes(int64_t{3} << 40), "3.00 TiB");
  EXPECT_EQ(FormatBytes(int64_t{5000} << 40), "5000.00 TiB");
  EXPECT_EQ(FormatBytes(-2048), "-2.00 KiB");
}

TEST(Utf8Test, WellFormed) {
  for (std::string_view good :
       {"", "plain", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80",
        "\xED\x9F\xBF", "\xEE\x80\x80", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF",
        "a\xE2\x82\xAC z"}) {
    EXPECT_TRUE(IsValidUtf8(good)) << good;
  }
  EXPECT_TRUE(IsValidUtf8(std::string_view("a\0b", 3)));
}

TEST(Utf8Test, IllFormed) {
  for (std::string_view bad :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41",
        "\xE0\x9F\xBF", "\xE2\x82", "\xED\xA0\x80", "\xED\xBF\xBF",
        "\xF0\x8F\xBF\xBF", "\xF0\x90\x80", "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80", "\xFF", "\xFE", "ok\xE2\x28\xA1"}) {
    EXPECT_FALSE(IsValidUtf8(bad));
  }
}

TEST(StringViewTest, BothKindsHoldTheSameText) {
  const std::string_view text = "two views";
  EXPECT_EQ(Std(Absl(text)), text);
  EXPECT_EQ(Std(Absl(text)).data(), text.data());
}

}  // namespace
}  // namespace bullpen
