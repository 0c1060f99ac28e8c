#include "server/api_keys.h"

#include "gtest/gtest.h"

namespace bullpen {
namespace {

const std::vector<std::string> kKeys = {"first-key", "second"};

TEST(ApiKeysTest, WithoutKeysEverybodyMayComeIn) {
  EXPECT_TRUE(IsAuthorized("", {}));
  EXPECT_TRUE(IsAuthorized("Bearer x", {}));
}

TEST(ApiKeysTest, AnyOfTheKeysOpens) {
  EXPECT_TRUE(IsAuthorized("Bearer first-key", kKeys));
  EXPECT_TRUE(IsAuthorized("bearer second", kKeys));
}

TEST(ApiKeysTest, NothingElseOpens) {
  for (const char* authorization :
       {"", "Bearer", "Bearer ", "Bearer first-ke", "Bearer first-keyy",
        "Bearer First-key", "Bearer secondsecond", "Basic first-key",
        "first-key", "Bearer first-key "}) {
    EXPECT_FALSE(IsAuthorized(authorization, kKeys)) << authorization;
  }
}

TEST(ApiKeysTest, AnEmptyKeyDoesNotOpenForAllTexts) {
  EXPECT_FALSE(IsAuthorized("Bearer x", {""}));
}

}  // namespace
}  // namespace bullpen
