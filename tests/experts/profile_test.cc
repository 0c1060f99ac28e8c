#include "engine/experts/profile.h"

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int32_t kExperts = 8;

RoutingShape Shape(int32_t layers) {
  return {.layers = std::vector<RoutingShape::Layer>(
              static_cast<size_t>(layers), {.experts = kExperts, .top_k = 1}),
          .max_rows = 1};
}

ActivationMatrix Request(std::vector<int32_t> experts) {
  ActivationMatrix matrix(Shape(2));
  for (const int32_t expert : experts) {
    const int32_t chosen[] = {expert};
    matrix.Add(0, chosen);
    matrix.Add(1, chosen);
  }
  return matrix;
}

TEST(ActivationStore, ABeginningFindsTheRequestsThatWentOnAlike) {
  ActivationStore store(Shape(2), 8);
  EXPECT_THAT(store.Match(Request({1})), IsEmpty());
  store.Add(Request({1, 1, 2, 3}));
  store.Add(Request({5, 6, 6, 7}));
  const std::vector<float> shares = store.Match(Request({1}));
  ASSERT_EQ(shares.size(), 2u * kExperts);
  EXPECT_NEAR(shares[1], 0.5, 1e-6);
  EXPECT_NEAR(shares[kExperts + 3], 0.25, 1e-6);
  EXPECT_EQ(shares[6], 0);
  EXPECT_THAT(store.Match(Request({4})), IsEmpty());
}

TEST(ActivationStore, WhenFullTheOneMostAlikeMakesRoom) {
  ActivationStore store(Shape(2), 2);
  store.Add(Request({0, 0, 1}));
  store.Add(Request({6, 7}));
  store.Add(Request({0, 1, 1}));
  EXPECT_EQ(store.matrices().size(), 2u);
  EXPECT_NEAR(store.Match(Request({0, 1}))[1], 2.0 / 3, 1e-5);
  EXPECT_NEAR(store.Match(Request({6}))[7], 0.5, 1e-5);
  store.Add(ActivationMatrix(Shape(2)));
  EXPECT_NEAR(store.Match(Request({6}))[7], 0.5, 1e-5);
}

// A predictor that has seen each expert lead to the next.
void Teach(RoutingPredictor& predictor) {
  std::mt19937 random(3);
  for (int token = 0; token < 400; ++token) {
    const int32_t first[] = {static_cast<int32_t>(random() % kExperts)};
    const int32_t second[] = {(first[0] + 1) % kExperts};
    predictor.Observe(0, first, 1);
    predictor.Guess({.layer = 1});
    predictor.Observe(1, second, 1);
  }
}

TEST(Profile, WhatWasLearntOutlivesTheProcess) {
  RoutingPredictor before(Shape(2), {});
  ActivationStore requests(Shape(2), 8);
  Teach(before);
  requests.Add(Request({1, 2}));
  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) / "profile_test.profile";
  std::filesystem::remove(path);
  RoutingPredictor after(Shape(2), {.horizon = 1});
  ActivationStore restored(Shape(2), 8);
  EXPECT_TRUE(absl::IsNotFound(LoadProfile(path, after, restored)));
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(SaveProfile(path, before, requests).ok());
  }
  ASSERT_TRUE(LoadProfile(path, after, restored).ok());
  std::filesystem::remove(path);
  EXPECT_EQ(restored.matrices(), requests.matrices());
  EXPECT_TRUE(std::ranges::equal(before.table(1, 1).counts(),
                                 after.table(1, 1).counts()));
  const int32_t first[] = {2};
  after.Observe(0, first, 1);
  const auto guesses = after.Guess({.layer = 1});
  ASSERT_FALSE(guesses.empty());
  EXPECT_EQ(guesses[0].expert, 3);
}

TEST(Profile, GivesWhatPastRequestsUsedMost) {
  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) / "profile_shares.profile";
  std::filesystem::remove(path);
  EXPECT_TRUE(absl::IsNotFound(LoadExpertShares(path, Shape(2)).status()));
  RoutingPredictor predictor(Shape(2), {});
  ActivationStore requests(Shape(2), 8);
  Teach(predictor);
  ASSERT_TRUE(SaveProfile(path, predictor, requests).ok());
  auto shares = LoadExpertShares(path, Shape(2));
  ASSERT_TRUE(shares.ok()) << shares.status();
  EXPECT_TRUE(std::ranges::equal((*shares)[1], predictor.popularity(1)));
  requests.Add(Request({1, 1, 2, 3}));
  requests.Add(Request({3, 3}));
  ASSERT_TRUE(SaveProfile(path, predictor, requests).ok());
  shares = LoadExpertShares(path, Shape(2));
  ASSERT_TRUE(shares.ok()) << shares.status();
  EXPECT_NEAR((*shares)[0][1], 0.25, 1e-6);
  EXPECT_NEAR((*shares)[1][3], 0.625, 1e-6);
  EXPECT_EQ((*shares)[1][0], 0);
  EXPECT_FALSE(LoadExpertShares(path, Shape(3)).ok());
  std::filesystem::remove(path);
}

class ProfilePath : public testing::Test {
 protected:
  ProfilePath() { std::filesystem::create_directories(dir_); }
  ~ProfilePath() override { std::filesystem::remove_all(dir_); }

  void Save(const std::filesystem::path& path, int32_t layers) {
    ASSERT_TRUE(SaveProfile(path, RoutingPredictor(Shape(layers), {}),
                            ActivationStore(Shape(layers), 8))
                    .ok());
  }
  static void Write(const std::filesystem::path& path, std::string_view text) {
    std::ofstream(path) << text;
  }
  static void ExpectRefused(const std::filesystem::path& path,
                            const std::string& why) {
    const absl::Status status = CheckProfilePath(path, Shape(2));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                testing::AllOf(HasSubstr(path.string()), HasSubstr(why)));
  }

  const std::filesystem::path dir_ =
      std::filesystem::path(testing::TempDir()) /
      ("profile_path_" + std::to_string(getpid()));
};

TEST_F(ProfilePath, MayBeNewEmptyOrAProfileOfThisModel) {
  EXPECT_TRUE(CheckProfilePath(dir_ / "new", Shape(2)).ok());
  Write(dir_ / "empty", "");
  EXPECT_TRUE(CheckProfilePath(dir_ / "empty", Shape(2)).ok());
  Save(dir_ / "own", 2);
  EXPECT_TRUE(CheckProfilePath(dir_ / "own", Shape(2)).ok());
  std::filesystem::resize_file(dir_ / "own", 30);  // damaged: learnt anew
  EXPECT_TRUE(CheckProfilePath(dir_ / "own", Shape(2)).ok());
}

TEST_F(ProfilePath, WhatIsNoProfileOfThisModelIsNotReplaced) {
  Write(dir_ / "weights", "somebody's weights");
  ExpectRefused(dir_ / "weights", "is not a routing profile");
  Save(dir_ / "other", 3);
  ExpectRefused(dir_ / "other", "3 layers; this one has 2");
  ExpectRefused(dir_, "is not a regular file");
  ExpectRefused(dir_ / "no" / "such", "cannot write to");
}

TEST_F(ProfilePath, ALinkStaysOne) {
  Save(dir_ / "own", 2);
  std::filesystem::create_symlink("own", dir_ / "link");
  const auto before = std::filesystem::last_write_time(dir_ / "own");
  std::filesystem::last_write_time(dir_ / "own",
                                   before - std::chrono::hours(1));
  Save(dir_ / "link", 2);
  EXPECT_TRUE(std::filesystem::is_symlink(dir_ / "link"));
  EXPECT_GE(std::filesystem::last_write_time(dir_ / "own"), before);
}

TEST(Profile, AnotherModelsIsRefused) {
  const RoutingPredictor two(Shape(2), {});
  RoutingPredictor three(Shape(3), {});
  ActivationStore store(Shape(3), 8);
  const absl::Status status = DecodeProfile(
      EncodeProfile(two, ActivationStore(Shape(2), 8)), three, store);
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("2 layers"));
}

TEST(Profile, DamageIsRefused) {
  RoutingPredictor predictor(Shape(2), {});
  ActivationStore store(Shape(2), 8);
  Teach(predictor);
  store.Add(Request({1, 2}));
  const std::string good = EncodeProfile(predictor, store);
  ASSERT_TRUE(DecodeProfile(good, predictor, store).ok());
  std::mt19937_64 random(1);
  for (int i = 0; i < 2000; ++i) {
    std::string bad = good;
    bad[random() % bad.size()] ^= static_cast<char>(1 << random() % 8);
    EXPECT_FALSE(DecodeProfile(bad, predictor, store).ok());
    EXPECT_FALSE(
        DecodeProfile(good.substr(0, random() % good.size()), predictor, store)
            .ok());
  }
}

}  // namespace
}  // namespace bullpen
