#include "engine/experts/request_follower.h"

#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "engine/experts/log_odds.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int32_t kExperts = 8;
constexpr int32_t kTopK = 2;
constexpr int32_t kLayers = 3;

RoutingShape Shape() {
  RoutingShape shape;
  shape.layers.assign(kLayers, {.experts = kExperts, .top_k = kTopK});
  shape.layers[0] = {.experts = 1, .top_k = 1};  // dense
  return shape;
}

// One row for each of `requests`, all layers; a row uses expert `choice` of its
// request and the next one.
void Step(RequestFollower& follower, const std::vector<RequestRows>& requests,
          const std::map<int32_t, int32_t>& choice, Phase phase) {
  follower.BeginStep(requests, phase);
  int32_t rows = 0;
  for (const RequestRows& request : requests) rows += request.rows;
  follower.Observe(0, std::vector<int32_t>(static_cast<size_t>(rows), 0));
  std::vector<int32_t> chosen;
  for (const RequestRows& request : requests) {
    for (int32_t row = 0; row < request.rows; ++row) {
      chosen.push_back(choice.at(request.request));
      chosen.push_back((choice.at(request.request) + 1) % kExperts);
    }
  }
  for (int32_t layer = 1; layer < kLayers; ++layer) {
    follower.Observe(layer, chosen);
  }
}

float OddsOf(const float* odds, int32_t layer, int32_t expert) {
  return odds[layer * kExperts + expert];
}

TEST(RequestFollower, RequestsThatRunTogetherAreKeptApart) {
  RequestFollower follower(Shape(), 8);
  const std::map<int32_t, int32_t> choice = {{1, 0}, {2, 4}};
  Step(follower,
       {{.request = 1, .first_row = 0, .rows = 3, .begins = true},
        {.request = 2, .first_row = 3, .rows = 2, .begins = true}},
       choice, Phase::kPrefill);
  Step(follower,
       {{.request = 1, .first_row = 0, .rows = 1},
        {.request = 2, .first_row = 1, .rows = 1}},
       choice, Phase::kDecode);
  follower.EndAll();
  ASSERT_THAT(follower.past().matrices(), SizeIs(2));
  for (const std::vector<float>& shares : follower.past().matrices()) {
    const int32_t mine = shares[kExperts] == 1 ? 0 : 4;
    for (int32_t e = 0; e < kExperts; ++e) {
      const bool used = e == mine || e == mine + 1;
      for (int32_t layer = 1; layer < kLayers; ++layer) {
        EXPECT_EQ(shares[static_cast<size_t>(layer * kExperts + e)],
                  used ? 1.0f : 0.0f);
      }
    }
  }
}

TEST(RequestFollower, EachRowGetsWhatRequestsLikeItsOwnUsed) {
  RequestFollower follower(Shape(), 8);
  const std::map<int32_t, int32_t> choice = {
      {1, 0}, {2, 4}, {3, 4}, {4, 0}, {5, 2}};
  for (const int32_t request : {1, 2}) {
    Step(follower, {{.request = request, .rows = 4, .begins = true}}, choice,
         Phase::kPrefill);
  }
  // Two like those before, and one like none.
  Step(follower,
       {{.request = 3, .first_row = 0, .rows = 2, .begins = true},
        {.request = 4, .first_row = 2, .rows = 1, .begins = true},
        {.request = 5, .first_row = 3, .rows = 1, .begins = true}},
       choice, Phase::kPrefill);
  EXPECT_THAT(follower.row_odds(), IsEmpty());
  Step(follower,
       {{.request = 5, .first_row = 0, .rows = 1},
        {.request = 3, .first_row = 1, .rows = 1},
        {.request = 4, .first_row = 2, .rows = 1}},
       choice, Phase::kDecode);
  ASSERT_THAT(follower.row_odds(), SizeIs(3));
  EXPECT_EQ(follower.row_odds()[0], nullptr);
  for (const auto& [row, expert] : {std::pair{1, 4}, std::pair{2, 0}}) {
    const float* const odds = follower.row_odds()[static_cast<size_t>(row)];
    ASSERT_NE(odds, nullptr) << row;
    EXPECT_EQ(OddsOf(odds, 1, expert), LogOdds(1)) << row;
    EXPECT_EQ(OddsOf(odds, 2, expert + 2), LogOdds(0)) << row;
  }
}

TEST(RequestFollower, OneThatBeginsAgainCountsFromTheStart) {
  RequestFollower follower(Shape(), 8);
  Step(follower, {{.request = 7, .rows = 5, .begins = true}}, {{7, 0}},
       Phase::kPrefill);
  Step(follower, {{.request = 7, .rows = 2, .begins = true}}, {{7, 3}},
       Phase::kPrefill);
  follower.EndAll();
  ASSERT_THAT(follower.past().matrices(), SizeIs(1));
  EXPECT_EQ(follower.past().matrices()[0][kExperts + 0], 0);
  EXPECT_EQ(follower.past().matrices()[0][kExperts + 3], 1);
}

TEST(RequestFollower, MoreThanItFollowsAreLeftAlone) {
  constexpr int32_t kMany = RequestFollower::kMaxRequests + 5;
  RequestFollower follower(Shape(), 2 * kMany);
  std::vector<RequestRows> requests;
  std::map<int32_t, int32_t> choice;
  for (int32_t i = 0; i < kMany; ++i) {
    requests.push_back(
        {.request = i, .first_row = i, .rows = 1, .begins = true});
    choice[i] = i % kExperts;
  }
  Step(follower, requests, choice, Phase::kPrefill);
  follower.EndAll();
  EXPECT_THAT(follower.past().matrices(),
              SizeIs(RequestFollower::kMaxRequests));
}

// By seed: requests come, wait, end and begin again; counts kept beside.
TEST(RequestFollower, CountsAreThoseOfAPlainBook) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    RequestFollower follower(Shape(), 512);
    std::map<int32_t, std::vector<int32_t>> open;  // experts of layer 1
    std::vector<std::vector<int32_t>> ended;
    int32_t next = 0;
    for (int step = 0; step < 200; ++step) {
      std::vector<RequestRows> requests;
      std::map<int32_t, int32_t> choice;
      std::map<int32_t, std::vector<int32_t>> still;
      int32_t row = 0;
      const auto add = [&](int32_t request, bool begins) {
        const int32_t rows = 1 + static_cast<int32_t>(random() % 3);
        requests.push_back({.request = request,
                            .first_row = row,
                            .rows = rows,
                            .begins = begins});
        row += rows;
        choice[request] = static_cast<int32_t>(random() % kExperts);
        if (begins) still[request].clear();
        still[request].insert(still[request].end(), static_cast<size_t>(rows),
                              choice[request]);
      };
      for (auto& [request, used] : open) {
        if (random() % 8 == 0) {
          ended.push_back(used);
          continue;
        }
        still[request] = used;
        add(request, random() % 16 == 0);
      }
      if (std::ssize(still) < RequestFollower::kMaxRequests &&
          (random() % 2 == 0 || requests.empty())) {
        add(next++, true);
      }
      open = still;
      Step(follower, requests, choice, Phase::kPrefill);
    }
    for (const auto& [request, used] : open) ended.push_back(used);
    follower.EndAll();
    const auto& kept = follower.past().matrices();
    ASSERT_EQ(kept.size(), ended.size());
    std::multiset<std::vector<float>> have;
    std::multiset<std::vector<float>> want;
    for (const std::vector<float>& shares : kept) {
      have.emplace(shares.begin() + kExperts, shares.begin() + 2 * kExperts);
    }
    for (const std::vector<int32_t>& used : ended) {
      std::vector<float> shares(kExperts);
      for (const int32_t expert : used) {
        ++shares[static_cast<size_t>(expert)];
        ++shares[static_cast<size_t>((expert + 1) % kExperts)];
      }
      for (float& share : shares) share /= static_cast<float>(used.size());
      want.insert(shares);
    }
    EXPECT_EQ(have, want);
  }
}

}  // namespace
}  // namespace bullpen
