#include "engine/experts/replay.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "base/check.h"
#include "engine/experts/guesser.h"
#include "engine/experts/prefetch_governor.h"
#include "engine/experts/prefetch_rule.h"
#include "engine/experts/simulated_link.h"
#include "engine/experts/slot_pool.h"
#include "engine/experts/trace_steps.h"

namespace bullpen {
namespace {

// Of the time of a layer, what comes before its router: attention and norms.
constexpr double kDenseShare = 0.3;

// For each run and each of its experts, how soon it is used again, negated: the
// score that makes EvictionPolicy evict as Belady does.
class FutureUses {
 public:
  FutureUses(const TraceSteps& steps, RunNeeds& needs) {
    const RoutingTrace& trace = steps.trace();
    const size_t experts = static_cast<size_t>(trace.experts());
    std::vector<double> next(static_cast<size_t>(trace.layers()) * experts,
                             -std::numeric_limits<double>::infinity());
    const auto all = steps.all_runs();
    scores_.resize(all.size());
    for (size_t r = all.size(); r-- > 0;) {
      needs.Assign(steps, all[r]);
      const size_t row = static_cast<size_t>(all[r].layer) * experts;
      for (const int32_t expert : needs.experts()) {
        scores_[r].push_back(next[row + static_cast<size_t>(expert)]);
        next[row + static_cast<size_t>(expert)] = -static_cast<double>(r);
      }
    }
  }
  std::span<const double> scores(int64_t run) const { return scores_[run]; }

 private:
  std::vector<std::vector<double>> scores_;
};

std::vector<SlotPool::LayerShape> Shapes(const RoutingTrace& trace,
                                         const ReplayConfig& config) {
  std::vector<SlotPool::LayerShape> shapes;
  for (int32_t l = 0; l < trace.layers(); ++l) {
    const int64_t bytes = trace.expert_bytes(l);
    shapes.push_back({.experts = trace.experts(),
                      .slots = config.slots_per_layer,
                      .floor = config.layer_floor > 0 ? config.layer_floor
                                                      : config.slots_per_layer,
                      .blob_bytes = bytes > 0 ? bytes : config.expert_bytes});
  }
  return shapes;
}

class CacheReplay {
 public:
  CacheReplay(const TraceSteps& steps, const ReplayConfig& config)
      : steps_(steps),
        config_(config),
        guesser_(MakeGuesser(steps, config)),
        link_(config.link_bytes_per_second, config.chunk_bytes),
        pool_(Shapes(steps.trace(), config), config.policy),
        rule_(config.predictor.min_probability),
        needs_(steps.trace().experts()) {
    const RoutingTrace& trace = steps.trace();
    layers_.reserve(static_cast<size_t>(trace.layers()));
    for (const SlotPool::LayerShape& shape : Shapes(trace, config)) {
      layers_.push_back(
          {.expert_bytes = shape.blob_bytes,
           .guessed = std::vector<bool>(static_cast<size_t>(trace.experts()))});
    }
    if (belady()) future_ = std::make_unique<FutureUses>(steps, needs_);
    if (config.policy.kind == PolicyKind::kStatic) PinByCounts();
  }

  ReplayReport Run(const std::function<void(int64_t, int64_t)>& progress) {
    int64_t done = 0;
    for (const TraceSteps::Step& step : steps_.steps()) {
      RunStep(step);
      if (progress) progress(++done, std::ssize(steps_.steps()));
    }
    for (const Layer& layer : layers_) {
      report_.tokens = std::max(report_.tokens, layer.tokens);
    }
    report_.bytes_prefetch_wasted = guess_bytes_ - report_.bytes_prefetch_used;
    report_.lookups = report_.resident + report_.prefetched +
                      report_.prefetched_late + report_.missed;
    report_.seconds = now_;
    report_.link_busy_seconds = link_.busy_seconds();
    return report_;
  }

 private:
  struct Layer {
    int64_t expert_bytes = 0;
    int64_t tokens = 0;
    std::vector<bool> guessed;  // loaded by a guess that was not used yet
  };

  bool belady() const { return config_.policy.kind == PolicyKind::kBelady; }

  void PinByCounts() {
    std::vector<std::vector<double>> counts(
        layers_.size(),
        std::vector<double>(static_cast<size_t>(steps_.trace().experts())));
    for (const TraceSteps::Run& run : steps_.all_runs()) {
      needs_.Assign(steps_, run);
      for (size_t j = 0; j < needs_.experts().size(); ++j) {
        counts[run.layer][needs_.experts()[j]] += needs_.counts()[j];
      }
    }
    for (size_t l = 0; l < counts.size(); ++l) {
      for (size_t e = 0; e < counts[l].size(); ++e) {
        pool_.layer(static_cast<int32_t>(l))
            .SetScore(static_cast<int32_t>(e), counts[l][e]);
      }
    }
  }

  void Spend(double seconds) {
    now_ += seconds;
    report_.compute_seconds += seconds;
  }

  void RunStep(const TraceSteps::Step& step) {
    const double start = now_;
    const double busy = link_.busy_seconds();
    const int64_t moved = link_.moved_bytes();
    const double demand = link_.demand_seconds();
    const int64_t guessed = report_.prefetched + report_.prefetched_late;
    uses_expected_ = 0;
    BeginStep(step);
    for (int64_t r = step.first_run; r < step.first_run + step.runs; ++r) {
      RunLayer(r, step.phase);
    }
    if (step.phase != Phase::kDecode) return;
    rule_.EndStep(
        {.seconds = now_ - start,
         .demand_seconds = link_.demand_seconds() - demand,
         .busy_seconds = link_.busy_seconds() - busy,
         .bytes = link_.moved_bytes() - moved,
         .layers = step.runs,
         .uses_expected = uses_expected_,
         .uses = static_cast<double>(report_.prefetched +
                                     report_.prefetched_late - guessed)});
    governor_.EndStep(now_ - start, steps_.runs(step)[0].rows);
  }

  void BeginStep(const TraceSteps::Step& step) {
    if (guesser_ == nullptr) return;
    guesser_->BeginStep(step);
    loads_ahead_ = (!config_.governed || governor_.on()) &&
                   step.phase == Phase::kDecode &&
                   steps_.runs(step)[0].rows <= PrefetchGovernor::kMaxRows;
    step_end_ = step.first_run + step.runs;
    Prefetch(step.first_run - 1, guesser_->reach());
  }

  void RunLayer(int64_t index, Phase phase) {
    const TraceSteps::Run& run = steps_.all_runs()[index];
    const double whole = phase == Phase::kDecode
                             ? config_.layer_seconds * run.rows
                             : std::max(config_.layer_seconds,
                                        config_.prompt_row_seconds * run.rows);
    Spend(kDenseShare * whole);
    TakeArrivals();
    if (guesser_ != nullptr) guesser_->Observe(run);
    layer_ = run.layer;
    layers_[layer_].tokens += run.rows;
    LookUp(index, phase);
    StartDemands();
    Prefetch(index, config_.predictor.horizon);
    const size_t distinct = needs_.experts().size();
    Compute((1 - kDenseShare) * whole / static_cast<double>(distinct));
    layer_ = -1;
  }

  void LookUp(int64_t index, Phase phase) {
    const TraceSteps::Run& run = steps_.all_runs()[index];
    Layer& layer = layers_[layer_];
    LayerSlots& slots = pool_.layer(layer_);
    needs_.Assign(steps_, run);
    // The oracle is a bound on what any rule does with these slots, and so
    // does not hold itself to the prefill ring. Where a step's experts take
    // turns in the slots, it may let any of them go again: they come one by
    // one, and those that are wanted again last.
    pool_.BeginStep(layer_, run.rows, belady() ? Phase::kDecode : phase);
    one_by_one_ = belady() && (phase == Phase::kPrefill ||
                               std::ssize(needs_.experts()) > slots.slots());
    for (size_t j = 0; j < needs_.experts().size(); ++j) {
      const int32_t expert = needs_.experts()[j];
      const int32_t slot = slots.Use(expert, needs_.counts()[j]);
      if (belady()) slots.SetScore(expert, future_->scores(index)[j]);
      if (slot < 0) {
        waiting_.push_back(expert);
        ++report_.missed;
        continue;
      }
      const bool guessed = layer.guessed[expert];
      if (guessed) {
        layer.guessed[expert] = false;
        report_.bytes_prefetch_used += layer.expert_bytes;
      }
      slots.Lease(slot);
      if (slots.state(slot) == SlotState::kResident) {
        ++(guessed ? report_.prefetched : report_.resident);
        ready_.push_back(slot);
      } else {
        ++report_.prefetched_late;
        link_.Promote({layer_, expert}, now_);
      }
    }
    CancelGuesses();
    std::ranges::reverse(waiting_);
    if (one_by_one_) {
      std::ranges::stable_sort(waiting_, std::greater<>(),
                               [&](int32_t e) { return slots.Score(e); });
    }
    remaining_ = static_cast<int32_t>(needs_.experts().size());
  }

  // Those that still load and that the layer does not want.
  void CancelGuesses() {
    LayerSlots& slots = pool_.layer(layer_);
    if (slots.loading() == 0) return;
    for (int32_t slot = 0; slot < slots.slots(); ++slot) {
      if (slots.state(slot) != SlotState::kLoading || slots.leased(slot)) {
        continue;
      }
      const int32_t expert = slots.expert(slot);
      const int64_t dropped = link_.Cancel({layer_, expert}, now_);
      if (dropped == 0) continue;
      --report_.loads;
      guess_bytes_ -= dropped;
      slots.FinishLoad(slot, /*ok=*/false);
      layers_[layer_].guessed[expert] = false;
    }
  }

  void StartDemands() {
    Layer& layer = layers_[layer_];
    const LayerSlots& slots = pool_.layer(layer_);
    while (!waiting_.empty()) {
      if (one_by_one_ && (!ready_.empty() || slots.loading() > 0)) return;
      const int32_t expert = waiting_.back();
      if (pool_.ClaimForDemand({layer_, expert}) < 0) return;
      waiting_.pop_back();
      layer.guessed[expert] = false;
      ++report_.loads;
      report_.bytes_demand += layer.expert_bytes;
      link_.Submit({layer_, expert}, layer.expert_bytes, Cause::kDemand, now_);
    }
  }

  // Computes each needed expert, `seconds` each, as they come.
  void Compute(double seconds) {
    LayerSlots& slots = pool_.layer(layer_);
    while (remaining_ > 0) {
      StartDemands();
      TakeArrivals();
      if (ready_.empty()) {
        Wait();
        continue;
      }
      Spend(seconds * static_cast<double>(ready_.size()));
      for (const int32_t slot : ready_) slots.Release(slot);
      remaining_ -= static_cast<int32_t>(ready_.size());
      ready_.clear();
    }
  }

  void Wait() {
    const LayerSlots& slots = pool_.layer(layer_);
    if (!waiting_.empty()) {
      // Guesses may fill the layer: the step needs one of their slots.
      for (int32_t slot = 0; slot < slots.slots(); ++slot) {
        if (slots.state(slot) == SlotState::kLoading) {
          link_.Promote({layer_, slots.expert(slot)}, now_);
        }
      }
    }
    arrivals_.clear();
    link_.RunUntilArrival(arrivals_);
    for (const SimulatedLink::Arrival& arrival : arrivals_) {
      report_.stall_seconds += std::max(0.0, arrival.time - now_);
      now_ = std::max(now_, arrival.time);
      Settle(arrival.key);
    }
  }

  void TakeArrivals() {
    arrivals_.clear();
    link_.RunUntil(now_, arrivals_);
    for (const SimulatedLink::Arrival& arrival : arrivals_) Settle(arrival.key);
  }

  void Settle(ExpertKey key) {
    LayerSlots& slots = pool_.layer(key.layer);
    const int32_t slot = slots.Find(key.expert);
    slots.FinishLoad(slot, /*ok=*/true);
    if (key.layer == layer_ && slots.leased(slot)) ready_.push_back(slot);
  }

  // As Prefetcher does, for so many runs behind this one of the same step.
  void Prefetch(int64_t index, int32_t horizon) {
    if (!loads_ahead_) return;
    const int64_t end = std::min(index + 1 + horizon, step_end_);
    for (int64_t ahead = index + 1; ahead < end; ++ahead) {
      LoadAhead(ahead, static_cast<int32_t>(ahead - index));
    }
  }

  // Where transfers take no time, all guesses are loaded.
  void LoadAhead(int64_t index, int32_t horizon) {
    const bool instant = config_.link_bytes_per_second <= 0;
    const TraceSteps::Run& run = steps_.all_runs()[index];
    Layer& layer = layers_[run.layer];
    LayerSlots& slots = pool_.layer(run.layer);
    const double room = instant ? std::numeric_limits<double>::infinity()
                                : rule_.Room(horizon, layer.expert_bytes,
                                             link_.queued_guess_bytes());
    const auto keep = [&](int32_t expert) {
      const int32_t slot = slots.Find(expert);
      if (slot >= 0) slots.Expect(slot);
      return slot >= 0;
    };
    const auto load = [&](int32_t expert) {
      const ExpertKey key{run.layer, expert};
      if (pool_.ClaimForGuess(key) < 0) return false;
      layer.guessed[expert] = true;
      ++report_.loads;
      guess_bytes_ += layer.expert_bytes;
      link_.Submit(key, layer.expert_bytes, Cause::kPrefetch, now_);
      return true;
    };
    uses_expected_ += rule_.Load(guesser_->Guess(run, horizon),
                                 {.blob_bytes = layer.expert_bytes,
                                  .room = room,
                                  .keep = keep,
                                  .load = load});
  }

  const TraceSteps& steps_;
  const ReplayConfig& config_;
  std::unique_ptr<Guesser> guesser_;
  SimulatedLink link_;
  SlotPool pool_;
  std::vector<Layer> layers_;
  std::unique_ptr<FutureUses> future_;  // of Belady
  PrefetchRule rule_;
  PrefetchGovernor governor_;
  double now_ = 0;
  int64_t guess_bytes_ = 0;
  double uses_expected_ = 0;  // of this step's guesses
  bool loads_ahead_ = false;  // in this step
  int64_t step_end_ = 0;      // its last run, and one
  ReplayReport report_;

  // The run at hand: each expert that it needs is waiting (no slot yet), on its
  // way, ready (a slot to compute), or done.
  int32_t layer_ = -1;
  RunNeeds needs_;
  std::vector<int32_t> waiting_;  // the last one goes first
  bool one_by_one_ = false;
  std::vector<int32_t> ready_;
  int32_t remaining_ = 0;
  std::vector<SimulatedLink::Arrival> arrivals_;  // scratch
};

}  // namespace

ReplayReport Replay(const RoutingTrace& trace, const ReplayConfig& config,
                    const std::function<void(int64_t, int64_t)>& progress) {
  CHECK(config.slots_per_layer >= 1 &&
        config.slots_per_layer <= trace.experts())
      << config.slots_per_layer;
  CHECK(config.layer_floor >= 0 && config.layer_floor <= config.slots_per_layer)
      << config.layer_floor;
  const bool prefill = config.phase != Phase::kDecode;
  const bool decode = config.phase != Phase::kPrefill;
  const TraceSteps steps(trace, prefill, decode);
  return CacheReplay(steps, config).Run(progress);
}

}  // namespace bullpen
