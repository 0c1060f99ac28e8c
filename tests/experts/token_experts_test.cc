#include "engine/experts/token_experts.h"

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

constexpr int32_t kExperts = 16;

// Keeps whole choices in queues, by place.
class PlainTokenExperts {
 public:
  explicit PlainTokenExperts(int32_t places) : places_(places) {}
  void Learn(int32_t id, const std::vector<int32_t>& chosen) {
    Place& place = kept_[id % places_];
    if (place.id != id && !place.choices.empty()) {
      place.choices.pop_front();
      return;
    }
    place.id = id;
    place.choices.push_back(chosen);
    if (place.choices.size() > 4) place.choices.pop_front();
  }
  const std::deque<std::vector<int32_t>>* Find(int32_t id) {
    const Place& place = kept_[id % places_];
    return place.id == id && !place.choices.empty() ? &place.choices : nullptr;
  }

 private:
  struct Place {
    int32_t id = -1;
    std::deque<std::vector<int32_t>> choices;
  };
  int32_t places_;
  std::map<int32_t, Place> kept_;
};

TEST(TokenExperts, EstimatesAreTheSharesOfTheLastFourTokensOfAnId) {
  constexpr int32_t kVocab = 60;
  const std::vector<float> prior(kExperts, 0.25f);
  for (uint32_t seed = 0; seed < 8; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    TokenExperts ample(kExperts, 2, kVocab, 1 << 20);
    const int64_t bytes = seed % 2 == 0 ? 1 << 20 : ample.bytes() / 4;
    TokenExperts tokens(kExperts, 2, kVocab, bytes);
    EXPECT_LE(tokens.bytes(), bytes);
    PlainTokenExperts plain(seed % 2 == 0 ? kVocab : kVocab / 4);
    std::vector<float> shares(kExperts);
    int32_t known = 0;
    for (int i = 0; i < 4000; ++i) {
      const int32_t id = static_cast<int32_t>(random() % kVocab);
      const int32_t a = static_cast<int32_t>(random() % kExperts);
      const std::vector<int32_t> chosen = {a, (a + 1 + id) % kExperts};
      const auto* const kept = plain.Find(id);
      ASSERT_EQ(tokens.Estimate(id, prior, shares), kept != nullptr) << i;
      if (kept != nullptr) {
        ++known;
        for (int32_t e = 0; e < kExperts; ++e) {
          float uses = 0.25f;
          for (const std::vector<int32_t>& one : *kept) {
            uses += static_cast<float>(std::ranges::count(one, e));
          }
          ASSERT_NEAR(shares[e], uses / static_cast<float>(kept->size() + 1),
                      1e-6f);
        }
      }
      if (chosen[0] == chosen[1]) continue;
      tokens.Learn(id, chosen);
      plain.Learn(id, chosen);
    }
    EXPECT_GT(known, 500);
  }
}

TEST(TokenExperts, HoldsNothingInNoBytes) {
  TokenExperts tokens(kExperts, 1, /*vocab=*/100, /*bytes=*/19);
  tokens.Learn(7, std::vector<int32_t>{3});
  std::vector<float> shares(kExperts, 0.5f);
  EXPECT_FALSE(tokens.Estimate(7, shares, shares));
  EXPECT_EQ(tokens.bytes(), 0);
}

}  // namespace
}  // namespace bullpen
