#include "server/errors.h"

#include "gtest/gtest.h"

namespace bullpen {
namespace {

TEST(ErrorsTest, CarryFieldAndCode) {
  const absl::Status status = FieldError("top_p", "too high", "some_code");
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_EQ(status.message(), "too high");
  EXPECT_EQ(ErrorParam(status), "top_p");
  EXPECT_EQ(ErrorCode(status), "some_code");
}

TEST(ErrorsTest, WithoutThemThereAreNone) {
  EXPECT_EQ(ErrorCode(FieldError("top_p", "too high")), std::nullopt);
  EXPECT_EQ(ErrorParam(absl::InternalError("x")), std::nullopt);
  EXPECT_EQ(ErrorParam(absl::OkStatus()), std::nullopt);
}

}  // namespace
}  // namespace bullpen
