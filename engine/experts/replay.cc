#include "engine/experts/replay.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "engine/experts/layer_slots.h"

namespace bullpen {
namespace {

// What one layer needs in one step: as ExpertCache::Acquire is told.
struct LayerStep {
  Phase phase = Phase::kDecode;
  int32_t turn = 0;
  int32_t tokens = 0;
  std::vector<int32_t> experts;  // distinct
  std::vector<int32_t> counts;
};

using LayerSteps = std::vector<LayerStep>;

void Count(LayerStep& step, std::span<const int32_t> chosen) {
  ++step.tokens;
  for (const int32_t expert : chosen) {
    const auto found = std::ranges::find(step.experts, expert);
    if (found == step.experts.end()) {
      step.experts.push_back(expert);
      step.counts.push_back(1);
    } else {
      ++step.counts[found - step.experts.begin()];
    }
  }
}

std::vector<LayerSteps> StepsByLayer(const RoutingTrace& trace,
                                     const std::optional<Phase>& phase) {
  std::vector<LayerSteps> layers(static_cast<size_t>(trace.layers()));
  for (const RoutingTrace::Choice& choice : trace.choices()) {
    if (phase.has_value() && choice.phase != *phase) continue;
    LayerSteps& steps = layers[choice.layer];
    const bool same_prompt = !steps.empty() &&
                             choice.phase == Phase::kPrefill &&
                             steps.back().phase == Phase::kPrefill &&
                             steps.back().turn == choice.turn;
    if (!same_prompt) {
      LayerStep& step = steps.emplace_back();
      step.phase = choice.phase;
      step.turn = choice.turn;
    }
    Count(steps.back(), trace.chosen(choice));
  }
  return layers;
}

// For each step and each of its experts, the step that uses it next.
std::vector<std::vector<double>> NextUses(const LayerSteps& steps,
                                          int32_t experts) {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  std::vector<double> next(static_cast<size_t>(experts), kNever);
  std::vector<std::vector<double>> uses(steps.size());
  for (size_t i = steps.size(); i-- > 0;) {
    for (const int32_t expert : steps[i].experts) {
      uses[i].push_back(next[expert]);
    }
    for (const int32_t expert : steps[i].experts) {
      next[expert] = static_cast<double>(i);
    }
  }
  return uses;
}

// Runs one layer's steps through its slots.
class LayerReplay {
 public:
  LayerReplay(const LayerSteps& steps, int32_t experts,
              const ReplayConfig& config)
      : steps_(steps),
        kind_(config.policy.kind),
        slots_(experts, config.slots_per_layer, config.policy) {
    if (kind_ == PolicyKind::kBelady) next_uses_ = NextUses(steps, experts);
    if (kind_ == PolicyKind::kStatic) PinByCounts(experts);
  }

  ReplayReport Run() {
    for (size_t i = 0; i < steps_.size(); ++i) Step(i);
    return report_;
  }

 private:
  void PinByCounts(int32_t experts) {
    std::vector<double> counts(static_cast<size_t>(experts));
    for (const LayerStep& step : steps_) {
      for (size_t j = 0; j < step.experts.size(); ++j) {
        counts[step.experts[j]] += step.counts[j];
      }
    }
    for (int32_t e = 0; e < experts; ++e) {
      slots_.policy().SetScore(e, counts[e]);
    }
  }

  void Step(size_t index) {
    const LayerStep& step = steps_[index];
    // The oracle is a bound on what any rule does with these slots, and so
    // does not hold itself to the prefill ring.
    slots_.BeginStep(step.tokens, kind_ == PolicyKind::kBelady ? Phase::kDecode
                                                               : step.phase);
    missing_.clear();
    for (size_t j = 0; j < step.experts.size(); ++j) {
      const int32_t expert = step.experts[j];
      const int32_t slot = slots_.Use(expert, step.counts[j]);
      if (kind_ == PolicyKind::kBelady) {
        slots_.policy().SetScore(expert, -next_uses_[index][j]);
      }
      if (slot < 0) {
        missing_.push_back(expert);
      } else {
        slots_.Lease(slot);
        leased_.push_back(slot);
      }
    }
    report_.tokens += step.tokens;
    report_.lookups += static_cast<int64_t>(step.experts.size());
    report_.loads += static_cast<int64_t>(missing_.size());
    report_.hits = report_.lookups - report_.loads;
    for (const int32_t expert : missing_) Load(expert);
    ReleaseAll();
  }

  void Load(int32_t expert) {
    int32_t slot = slots_.ClaimForDemand(expert);
    if (slot < 0) {
      // All slots are in use: this group is computed, and the next begins.
      ReleaseAll();
      slot = slots_.ClaimForDemand(expert);
    }
    slots_.FinishLoad(slot, /*ok=*/true);
    leased_.push_back(slot);
  }

  void ReleaseAll() {
    for (const int32_t slot : leased_) slots_.Release(slot);
    leased_.clear();
  }

  const LayerSteps& steps_;
  const PolicyKind kind_;
  LayerSlots slots_;
  std::vector<std::vector<double>> next_uses_;  // kBelady
  std::vector<int32_t> missing_;                // scratch
  std::vector<int32_t> leased_;
  ReplayReport report_;
};

}  // namespace

ReplayReport Replay(const RoutingTrace& trace, const ReplayConfig& config) {
  ReplayReport total;
  const std::vector<LayerSteps> layers = StepsByLayer(trace, config.phase);
  for (int32_t l = 0; l < trace.layers(); ++l) {
    const ReplayReport layer =
        LayerReplay(layers[l], trace.experts(), config).Run();
    total.lookups += layer.lookups;
    total.hits += layer.hits;
    total.loads += layer.loads;
    total.bytes += layer.loads * trace.expert_bytes(l);
    total.tokens = std::max(total.tokens, layer.tokens);
  }
  return total;
}

}  // namespace bullpen
