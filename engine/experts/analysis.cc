#include "engine/experts/analysis.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace bullpen {
namespace {

using Text = std::vector<std::span<const int32_t>>;

// A layer's tokens, turn by turn, each in order.
std::vector<TokenChoices> ByLayer(const RoutingTrace& trace,
                                  std::optional<Phase> phase) {
  std::vector<TokenChoices> layers(static_cast<size_t>(trace.layers()),
                                   {.experts = trace.experts(), .texts = {}});
  using Key = std::pair<int32_t, int32_t>;  // layer, turn
  std::map<Key, std::vector<const RoutingTrace::Choice*>> texts;
  for (const RoutingTrace::Choice& choice : trace.choices()) {
    if (phase.has_value() && choice.phase != *phase) continue;
    texts[{choice.layer, choice.turn}].push_back(&choice);
  }
  for (auto& [key, choices] : texts) {
    std::ranges::stable_sort(choices, {}, [](const auto* choice) {
      return std::pair(choice->phase, choice->step);
    });
    Text& text = layers[key.first].texts.emplace_back();
    for (const auto* choice : choices) text.push_back(trace.chosen(*choice));
  }
  return layers;
}

bool Uses(std::span<const int32_t> chosen, int32_t expert) {
  return std::ranges::find(chosen, expert) != chosen.end();
}

void SetSkew(const TokenChoices& choices, RoutingFigures& figures) {
  std::vector<double> uses(static_cast<size_t>(choices.experts));
  double total = 0;
  for (const Text& text : choices.texts) {
    figures.tokens += std::ssize(text);
    for (const auto& chosen : text) {
      for (const int32_t expert : chosen) ++uses[expert];
      total += static_cast<double>(chosen.size());
    }
  }
  if (total == 0) return;
  std::ranges::sort(uses, std::greater<>());
  double entropy = 0;
  const size_t quarter = (uses.size() + 3) / 4;
  for (size_t i = 0; i < uses.size() && uses[i] > 0; ++i) {
    ++figures.used_experts;
    entropy -= uses[i] / total * std::log(uses[i] / total);
    if (i < quarter) figures.top_quarter_share += uses[i] / total;
  }
  figures.effective_experts = std::exp(entropy);
}

void SetOverlap(const TokenChoices& choices, RoutingFigures& figures) {
  for (size_t i = 0; i < kLags.size(); ++i) {
    const size_t lag = static_cast<size_t>(kLags[i]);
    HitCounts same;
    for (const Text& text : choices.texts) {
      for (size_t now = lag; now < text.size(); ++now) {
        for (const int32_t expert : text[now]) {
          ++same.lookups;
          same.hits += Uses(text[now - lag], expert);
        }
      }
    }
    figures.overlap[i] = same.rate();
  }
}

void SetWorkingSet(const TokenChoices& choices, RoutingFigures& figures) {
  std::vector<int64_t> texts_of;  // as long
  for (const Text& text : choices.texts) {
    std::vector<bool> seen(static_cast<size_t>(choices.experts));
    double distinct = 0;
    size_t place = 0;
    for (size_t now = 0; now < text.size(); ++now) {
      for (const int32_t expert : text[now]) {
        distinct += seen[expert] ? 0 : 1;
        seen[expert] = true;
      }
      if (now + 1 != size_t{1} << place) continue;
      if (place == figures.working_set.size()) {
        figures.working_set.push_back(0);
        texts_of.push_back(0);
      }
      figures.working_set[place] += distinct;
      ++texts_of[place++];
    }
  }
  for (size_t i = 0; i < texts_of.size(); ++i) {
    figures.working_set[i] /= static_cast<double>(texts_of[i]);
  }
}

// Texts of both layers are the same turns, token for token, in a trace whose
// tokens run through all layers; others are left out.
void SetAffinity(const TokenChoices& from, const TokenChoices& to, size_t hop,
                 RoutingFigures& figures) {
  const size_t width = static_cast<size_t>(to.experts);
  std::vector<int64_t> together(static_cast<size_t>(from.experts) * width);
  std::vector<int64_t> uses(width);
  int64_t pairs = 0;
  int64_t tokens = 0;
  for (size_t t = 0; t < std::min(from.texts.size(), to.texts.size()); ++t) {
    if (from.texts[t].size() != to.texts[t].size()) continue;
    for (size_t now = 0; now < from.texts[t].size(); ++now) {
      ++tokens;
      for (const int32_t j : to.texts[t][now]) ++uses[j];
      for (const int32_t i : from.texts[t][now]) {
        ++pairs;
        for (const int32_t j : to.texts[t][now]) {
          ++together[static_cast<size_t>(i) * width + j];
        }
      }
    }
  }
  if (tokens == 0) return;
  int64_t likeliest = 0;
  for (int32_t i = 0; i < from.experts; ++i) {
    const auto row = together.begin() + i * static_cast<int64_t>(width);
    likeliest += *std::max_element(row, row + static_cast<int64_t>(width));
  }
  figures.affinity[hop] = static_cast<double>(likeliest) / pairs;
  figures.affinity_base[hop] =
      static_cast<double>(*std::ranges::max_element(uses)) / tokens;
}

// Adds up figures of layers, each by how many layers have it.
class MeanOf {
 public:
  void Add(std::span<const double> values) {
    if (sums_.size() < values.size()) {
      sums_.resize(values.size());
      counts_.resize(values.size());
    }
    for (size_t i = 0; i < values.size(); ++i) {
      sums_[i] += values[i];
      ++counts_[i];
    }
  }
  std::vector<double> Take() const {
    std::vector<double> means = sums_;
    for (size_t i = 0; i < means.size(); ++i) means[i] /= counts_[i];
    return means;
  }

 private:
  std::vector<double> sums_;
  std::vector<double> counts_;
};

// Of each hop, over the layers that have one so far ahead.
void SetMeanAffinity(const std::vector<RoutingFigures>& layers,
                     RoutingFigures& mean) {
  for (size_t i = 0; i < kHops.size(); ++i) {
    double with = 0;
    for (const RoutingFigures& layer : layers) {
      if (layer.affinity_base[i] == 0) continue;
      ++with;
      mean.affinity[i] += layer.affinity[i];
      mean.affinity_base[i] += layer.affinity_base[i];
    }
    if (with == 0) continue;
    mean.affinity[i] /= with;
    mean.affinity_base[i] /= with;
  }
}

// The mean of what is not counted for the model as a whole, over the layers
// that route: a model's first ones may be dense.
RoutingFigures Mean(const std::vector<RoutingFigures>& layers) {
  RoutingFigures mean;
  MeanOf skew, overlap, working_set;
  std::array<MeanOf, kSegments.size()> segment_cache;
  for (const RoutingFigures& layer : layers) {
    if (layer.tokens == 0) continue;
    mean.tokens = std::max(mean.tokens, layer.tokens);
    skew.Add(std::array{static_cast<double>(layer.used_experts),
                        layer.effective_experts, layer.top_quarter_share});
    overlap.Add(layer.overlap);
    working_set.Add(layer.working_set);
    for (size_t m = 0; m < kSegments.size(); ++m) {
      segment_cache[m].Add(layer.segment_cache[m]);
    }
  }
  if (mean.tokens == 0) return layers.empty() ? mean : layers.front();
  mean.used_experts = static_cast<int32_t>(std::lround(skew.Take()[0]));
  mean.effective_experts = skew.Take()[1];
  mean.top_quarter_share = skew.Take()[2];
  std::ranges::copy(overlap.Take(), mean.overlap.begin());
  mean.working_set = working_set.Take();
  for (size_t m = 0; m < kSegments.size(); ++m) {
    mean.segment_cache[m] = segment_cache[m].Take();
  }
  SetMeanAffinity(layers, mean);
  return mean;
}

}  // namespace

void SegmentCounts::Add(const TokenChoices& choices) {
  for (const Text& text : choices.texts) Add(choices.experts, text);
}

void SegmentCounts::Add(int32_t experts,
                        std::span<const std::span<const int32_t>> text) {
  const size_t segment = static_cast<size_t>(segment_);
  if (text.size() < segment) return;
  std::vector<int32_t> uses(static_cast<size_t>(experts));
  // By uses in the window: how many experts. Only those that a token brings or
  // takes away move.
  std::vector<int32_t> experts_with(segment + 1);
  const auto use = [&](std::span<const int32_t> token, int32_t by) {
    for (const int32_t expert : token) {
      --experts_with[uses[expert]];
      uses[expert] += by;
      ++experts_with[uses[expert]];
    }
  };
  for (size_t now = 0; now < text.size(); ++now) {
    use(text[now], 1);
    if (now + 1 < segment) continue;
    ++windows_;
    for (size_t f = 1; f <= segment; ++f) windows_with_[f] += experts_with[f];
    use(text[now + 1 - segment], -1);
  }
}

std::optional<SegmentRouting> SegmentCounts::Best() const {
  if (windows_ == 0) return std::nullopt;
  double all = 0;
  for (size_t f = 1; f < windows_with_.size(); ++f) {
    all += static_cast<double>(f) * static_cast<double>(windows_with_[f]);
  }
  SegmentRouting best;
  double right = 0;   // uses that a router of this threshold serves
  double chosen = 0;  // window-expert pairs that it serves
  for (size_t f = windows_with_.size() - 1; f > 0; --f) {
    right += static_cast<double>(f) * static_cast<double>(windows_with_[f]);
    chosen += static_cast<double>(windows_with_[f]);
    const double f1 = 2 * right / (segment_ * chosen + all);
    if (f1 > best.srp) best = {.srp = f1, .ratio = segment_ * chosen / all};
  }
  return best;
}

HitCounts SegmentCache(const TokenChoices& choices, int32_t segment,
                       int32_t slots) {
  OracleCache cache(choices.experts);
  HitCounts counts;
  for (const Text& text : choices.texts) {
    const HitCounts one =
        cache.Segment({.steps = text, .slots = slots}, segment);
    counts.lookups += one.lookups;
    counts.hits += one.hits;
  }
  return counts;
}

RoutingAnalysis AnalyzeRouting(
    const RoutingTrace& trace, std::span<const int32_t> slots,
    std::optional<Phase> phase,
    const std::function<void(int64_t, int64_t)>& progress) {
  const std::vector<TokenChoices> layers = ByLayer(trace, phase);
  RoutingAnalysis analysis{
      .slots = {slots.begin(), slots.end()}, .layers = {}, .whole = {}};
  std::vector<SegmentCounts> whole(kSegments.begin(), kSegments.end());
  for (size_t l = 0; l < layers.size(); ++l) {
    RoutingFigures& figures = analysis.layers.emplace_back();
    SetSkew(layers[l], figures);
    SetOverlap(layers[l], figures);
    SetWorkingSet(layers[l], figures);
    for (size_t m = 0; m < kSegments.size(); ++m) {
      SegmentCounts counts(kSegments[m]);
      counts.Add(layers[l]);
      whole[m].Add(layers[l]);
      figures.segments[m] = counts.Best();
      for (const int32_t count : slots) {
        figures.segment_cache[m].push_back(
            SegmentCache(layers[l], kSegments[m], count).rate());
      }
    }
    for (size_t i = 0; i < kHops.size(); ++i) {
      const size_t to = l + static_cast<size_t>(kHops[i]);
      if (to < layers.size()) SetAffinity(layers[l], layers[to], i, figures);
    }
    if (progress) progress(static_cast<int64_t>(l) + 1, std::ssize(layers));
  }
  analysis.whole = Mean(analysis.layers);
  for (size_t m = 0; m < kSegments.size(); ++m) {
    analysis.whole.segments[m] = whole[m].Best();
  }
  return analysis;
}

}  // namespace bullpen
