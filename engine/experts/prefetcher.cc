#include "engine/experts/prefetcher.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/experts/profile.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

constexpr int64_t kPublishSteps = 64;
constexpr int32_t kPastRequests = 64;
// The time of guessing is measured in one of so many steps.
constexpr int32_t kCostSteps = 16;

double SteadySeconds() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Prefetcher::Prefetcher(const PrefetchConfig& config, ExpertCache& cache,
                       Metrics& metrics)
    : config_(config),
      cache_(cache),
      metrics_(metrics),
      uses_routers_((config.predictor.evidence & Bit(Evidence::kRouter)) != 0),
      predictor_(config.shape, config.predictor),
      requests_(config.shape, kPastRequests),
      rule_(config.predictor.min_probability) {
  if (!config_.profile.empty()) {
    const absl::Status loaded =
        LoadProfile(config_.profile, predictor_, requests_.past());
    if (!loaded.ok() && !absl::IsNotFound(loaded)) {
      spdlog::warn("starting without the profile: {}", loaded.ToString());
    }
  }
  predictor_.costs() = CostMeter(&SteadySeconds);
  for (const Evidence kind : kAllEvidenceKinds) {
    costs_.push_back({.seconds = &metrics.predictor_seconds.Add(
                          {{"predictor", Name(kind)}})});
  }
  costs_.push_back(
      {.seconds = &metrics.predictor_seconds.Add({{"predictor", "combined"}})});
  for (int32_t h = 1; h <= predictor_.reach(); ++h) {
    const auto add = [&](const std::string& name) {
      const prometheus::Labels labels = {{"predictor", name},
                                         {"horizon", absl::StrCat(h)}};
      gauges_.push_back({.precision = &metrics.predictor_precision.Add(labels),
                         .recall = &metrics.predictor_recall.Add(labels)});
    };
    add("combined");
    for (const Evidence kind : kAllEvidenceKinds) add(Name(kind));
  }
  Publish();
}

Prefetcher::~Prefetcher() {
  if (config_.profile.empty()) return;
  requests_.EndAll();
  const absl::Status saved =
      SaveProfile(config_.profile, predictor_, requests_.past());
  if (!saved.ok()) spdlog::warn("profile not saved: {}", saved.ToString());
}

bool Prefetcher::LoadsAhead(int32_t rows, Phase phase) const {
  return (config_.always || governor_.on()) && phase == Phase::kDecode &&
         rows <= kMaxRows;
}

void Prefetcher::BeginStep(const Begun& begun, RouterPeek peek) {
  CostMeter& costs = predictor_.costs();
  costs.Watch(++begun_ % kCostSteps == 0);
  costs.Start();
  requests_.BeginStep(begun.requests, begun.phase);
  costs.Charge(Evidence::kRequest);
  predictor_.BeginStep(
      {.ids = begun.ids, .request_odds = requests_.row_odds()});
  const int32_t rows = static_cast<int32_t>(begun.ids.size());
  if (rows == 0 || !LoadsAhead(rows, begun.phase)) return;
  const int32_t layers = std::min(
      predictor_.reach(), static_cast<int32_t>(config_.shape.layers.size()));
  for (int32_t h = 1; h <= layers; ++h) {
    Guess({.layer = h - 1, .horizon = h, .rows = rows}, peek);
  }
}

void Prefetcher::AfterRoute(const Routed& routed, RouterPeek peek) {
  predictor_.costs().Start();
  requests_.Observe(routed.layer, routed.chosen);
  predictor_.costs().Charge(Evidence::kRequest);
  predictor_.Observe(routed.layer, routed.chosen, routed.rows);
  if (!LoadsAhead(routed.rows, routed.phase)) return;
  const int32_t ahead = std::min(
      predictor_.horizon(),
      static_cast<int32_t>(config_.shape.layers.size()) - 1 - routed.layer);
  for (int32_t h = 1; h <= ahead; ++h) {
    Guess({.layer = routed.layer + h, .horizon = h, .rows = routed.rows}, peek);
  }
}

void Prefetcher::Guess(const Ahead& ahead, RouterPeek peek) {
  const int64_t blob_bytes = cache_.catalog().layers[ahead.layer].blob_bytes;
  const double room = rule_.Room(ahead.horizon, blob_bytes,
                                 cache_.accounts().guess_bytes_under_way());
  if (config_.shape.layers[ahead.layer].experts < 2 || room <= 0) return;
  RoutingPredictor::Query query{.layer = ahead.layer, .horizon = ahead.horizon};
  if (uses_routers_) {
    predictor_.costs().Start();
    query.router_margins = peek(ahead.layer, ahead.rows);
    predictor_.costs().Charge(Evidence::kRouter);
  }
  const auto keep = [&](int32_t expert) {
    return cache_.Expect({.layer = ahead.layer, .expert = expert});
  };
  const auto load = [&](int32_t expert) {
    const ExpertKey key{.layer = ahead.layer, .expert = expert};
    return cache_.Prefetch({&key, 1}) > 0;
  };
  uses_expected_ += rule_.Load(
      predictor_.Guess(query),
      {.blob_bytes = blob_bytes, .room = room, .keep = keep, .load = load});
}

void Prefetcher::EndStep(double seconds, int32_t rows, Phase phase) {
  const CacheAccounts& accounts = cache_.accounts();
  const double busy = accounts.link_busy_seconds() - busy_seconds_;
  const uint64_t bytes = accounts.bytes_loaded() - bytes_loaded_;
  const double demand = cache_.demand_seconds() - demand_seconds_;
  const LookupCounts& lookups = accounts.decode();
  const uint64_t uses =
      lookups.prefetched + lookups.prefetched_late - guesses_used_;
  const double uses_expected = std::exchange(uses_expected_, 0);
  busy_seconds_ += busy;
  bytes_loaded_ += bytes;
  demand_seconds_ += demand;
  guesses_used_ += uses;
  if (phase != Phase::kDecode || seconds <= 0) return;
  rule_.EndStep({.seconds = seconds,
                 .demand_seconds = demand,
                 .busy_seconds = busy,
                 .bytes = static_cast<int64_t>(bytes),
                 .layers = static_cast<int32_t>(config_.shape.layers.size()),
                 .uses_expected = uses_expected,
                 .uses = static_cast<double>(uses)});
  governor_.EndStep(seconds, rows);
  if (++steps_ % kPublishSteps == 0) Publish();
}

void Prefetcher::Publish() {
  metrics_.prefetch_on.Set(config_.always || governor_.on() ? 1 : 0);
  for (int32_t a = 0; a < CostMeter::kAccounts; ++a) {
    const double seconds = predictor_.costs().seconds(a);
    costs_[a].seconds->Increment(kCostSteps * (seconds - costs_[a].published));
    costs_[a].published = seconds;
  }
  size_t i = 0;
  for (int32_t h = 1; h <= predictor_.reach(); ++h) {
    const auto set = [&](const GuessCounts& counts) {
      gauges_[i].precision->Set(counts.precision());
      gauges_[i++].recall->Set(counts.recall());
    };
    set(predictor_.combined_counts(h));
    for (const Evidence kind : kAllEvidenceKinds) {
      set(predictor_.counts(kind, h));
    }
  }
}

}  // namespace bullpen
