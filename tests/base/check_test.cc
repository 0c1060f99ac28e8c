#include "base/check.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/status.h"
#include "base/thread_owner.h"

namespace bullpen {
namespace {

TEST(CheckDeathTest, SaysWhereWhatAndWhy) {
  const int value = 3;
  EXPECT_DEATH(CHECK(value == 4) << "value " << value,
               "check_test.cc:[0-9]+: CHECK failed: value == 4 value 3");
}

TEST(CheckTest, HoldingCheckEvaluatesOnceAndPrintsNothing) {
  int calls = 0;
  int printed = 0;
  CHECK(++calls > 0) << ++printed;
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(printed, 0);
}

TEST(CheckTest, BindsToItsOwnStatement) {
  bool other = false;
  if (false)
    CHECK(true);
  else
    other = true;
  EXPECT_TRUE(other);
}

TEST(ThreadOwnerDeathTest, SecondThreadIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        ThreadOwner owner;
        owner.Check();
        std::thread([&] { owner.Check(); }).join();
      },
      "does not own this object");
}

TEST(ThreadOwnerTest, ReleasedOwnerCanChange) {
  ThreadOwner owner;
  owner.Check();
  owner.Check();
  owner.Release();
  std::thread([&] { owner.Check(); }).join();
}

absl::Status Fails() { return absl::DataLossError("bad"); }
absl::StatusOr<int> Gives(bool ok) {
  if (!ok) return Fails();
  return 7;
}
absl::StatusOr<int> Twice(bool ok) {
  RETURN_IF_ERROR(absl::OkStatus());
  ASSIGN_OR_RETURN(const int value, Gives(ok));
  return 2 * value;
}

TEST(StatusMacroTest, ReturnEarlyWithTheSameStatus) {
  EXPECT_EQ(Twice(true).value(), 14);
  EXPECT_EQ(Twice(false).status(), Fails());
}

}  // namespace
}  // namespace bullpen
