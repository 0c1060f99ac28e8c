#include "engine/experts/predictor.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "engine/experts/log_odds.h"

namespace bullpen {
namespace {

// Above this many rows nearly every expert is used: paths are not followed.
constexpr int32_t kMaxPathRows = 8;
constexpr int32_t kMaxHorizon = 16;

size_t Index(Evidence evidence) { return static_cast<size_t>(evidence); }

void Attach(EvidenceRow& row, Evidence evidence, const float* log_odds) {
  row.present |= Bit(evidence);
  row.log_odds[Index(evidence)] = log_odds;
}

// What tables one layer further ahead would take.
int64_t HorizonBytes(const RoutingShape& shape, int32_t horizon) {
  int64_t bytes = 0;
  for (size_t l = static_cast<size_t>(horizon); l < shape.layers.size(); ++l) {
    bytes += ConditionalTable::Bytes(shape.layers[l - horizon].experts,
                                     shape.layers[l].experts);
  }
  return bytes;
}

}  // namespace

RoutingPredictor::RoutingPredictor(const RoutingShape& shape,
                                   const PredictorConfig& config)
    : config_(config), max_rows_(shape.max_rows) {
  CHECK(config.horizon >= 1 && config.horizon <= kMaxHorizon) << config.horizon;
  int64_t bytes = 0;
  if ((config.evidence & Bit(Evidence::kPath)) != 0) {
    while (table_horizon_ < config.horizon) {
      const int64_t more = HorizonBytes(shape, table_horizon_ + 1);
      if (bytes + more > config.table_bytes) break;
      bytes += more;
      ++table_horizon_;
    }
  }
  const bool tokens =
      shape.vocab > 0 && (config.evidence & Bit(Evidence::kToken)) != 0;
  const size_t reach = static_cast<size_t>(
      tokens ? std::max(config.horizon, kTokenLayers) : config.horizon);
  counts_.resize(reach);
  int32_t most = 0;
  layers_.reserve(shape.layers.size());
  for (int32_t l = 0; l < std::ssize(shape.layers); ++l) {
    most = std::max(most, shape.layers[l].experts);
  }
  weights_.assign(reach, EvidenceWeights(most));
  for (int32_t l = 0; l < std::ssize(shape.layers); ++l) AddLayer(shape, l);
  if (tokens) AddTokenTables(shape.vocab, config.table_bytes - bytes);
  for (std::vector<float>* floats :
       {&row_guess_.path_odds, &row_guess_.router_odds, &row_guess_.token_odds,
        &row_guess_.combined, &estimate_, &used_, &unused_}) {
    floats->resize(static_cast<size_t>(most));
  }
  guesses_.reserve(static_cast<size_t>(most));
}

void RoutingPredictor::AddLayer(const RoutingShape& shape, int32_t index) {
  const auto [experts, top_k] = shape.layers[index];
  CHECK(top_k >= 1 && top_k <= experts) << top_k << " of " << experts;
  Layer& layer = layers_.emplace_back(Layer{
      .shape = shape.layers[index],
      .popularity = Popularity(experts, top_k, config_.popularity_half_life),
      .recent = Popularity(experts, top_k, config_.recent_half_life)});
  layer.chosen.reserve(static_cast<size_t>(shape.max_rows) * top_k);
  for (int32_t h = 1; h <= reach(); ++h) {
    RowGuess& pending = layer.pending.emplace_back();
    for (std::vector<float>* odds : {&pending.path_odds, &pending.router_odds,
                                     &pending.token_odds, &pending.combined}) {
      odds->resize(static_cast<size_t>(experts));
    }
    if (h <= table_horizon_ && index >= h) {
      layer.tables.emplace_back(shape.layers[index - h].experts, experts,
                                config_.row_uses);
    }
  }
}

void RoutingPredictor::AddTokenTables(int32_t vocab, int64_t bytes) {
  const auto first =
      std::span(layers_).first(std::min<size_t>(layers_.size(), kTokenLayers));
  for (Layer& layer : first) {
    if (Dense(layer)) continue;
    layer.tokens.emplace_back(layer.shape.experts, layer.shape.top_k, vocab,
                              bytes / kTokenLayers);
  }
}

void RoutingPredictor::BeginStep(const StepTokens& tokens) {
  // A step that was given up leaves guesses for layers that did not run; they
  // point into what the caller keeps no longer.
  for (Layer& layer : layers_) {
    for (RowGuess& guess : layer.pending) {
      if ((guess.row.present & Bit(Evidence::kRequest)) != 0) {
        guess.row.present = 0;
      }
    }
  }
  ++step_;
  last_layer_ = -1;
  tokens_ = tokens;
  if (tokens.ids.empty()) return;
  rows_ = std::min(static_cast<int32_t>(tokens.ids.size()), max_rows_);
}

void RoutingPredictor::Observe(int32_t index, std::span<const int32_t> chosen,
                               int32_t rows) {
  Layer& layer = layers_[index];
  const int32_t k = layer.shape.top_k;
  CHECK(rows >= 1 && chosen.size() == static_cast<size_t>(rows) * k)
      << chosen.size() << " choices of " << rows << " rows";
  if (index <= last_layer_) BeginStep({});
  last_layer_ = index;
  rows_ = std::min(rows, max_rows_);
  if (Dense(layer)) return;
  costs_.Start();
  LearnTokens(layer, chosen, rows);
  costs_.Charge(Evidence::kToken);
  chosen = chosen.last(static_cast<size_t>(rows_) * k);
  for (int32_t h = 1; h <= reach(); ++h) {
    RowGuess& pending = layer.pending[h - 1];
    if (pending.row.present == 0) continue;
    std::fill_n(used_.begin(), layer.shape.experts, 0.0f);
    for (int32_t i = 0; i < k; ++i) used_[chosen[i]] = 1;
    Settle(layer, h);
  }
  costs_.ChargeCombined();
  layer.chosen.assign(chosen.begin(), chosen.end());
  layer.step = step_;
  LearnPaths(index);
  costs_.Charge(Evidence::kPath);
  layer.popularity.Learn(chosen, rows_);
  costs_.Charge(Evidence::kPopularity);
  layer.recent.Learn(chosen, rows_);
  costs_.Charge(Evidence::kRecent);
}

void RoutingPredictor::Settle(Layer& layer, int32_t horizon) {
  RowGuess& guess = layer.pending[horizon - 1];
  const float least = LogOdds(config_.min_probability);
  const auto count = [&](const float* odds, float bar, GuessCounts& counts) {
    float guessed = 0;
    float right = 0;
    for (int32_t e = 0; e < layer.shape.experts; ++e) {
      const float taken = odds[e] >= bar ? 1.0f : 0.0f;
      guessed += taken;
      right += taken * used_[e];
    }
    counts.guessed += static_cast<uint64_t>(guessed);
    counts.right += static_cast<uint64_t>(right);
    counts.used += static_cast<uint64_t>(layer.shape.top_k);
  };
  Counts& counts = counts_[horizon - 1];
  for (int32_t i = 0; i < kEvidenceKinds; ++i) {
    if ((guess.row.present >> i & 1) == 0) continue;
    // The router's own margin is that to the last of its choice.
    const bool router = i == static_cast<int32_t>(Evidence::kRouter);
    count(guess.row.log_odds[i], router ? 0 : least, counts.evidence[i]);
  }
  count(guess.combined.data(), least, counts.combined);
  weights_[horizon - 1].Learn(guess.row, guess.combined, used_);
  guess.row.present = 0;
}

bool RoutingPredictor::HasIds(const Layer& layer) const {
  return !layer.tokens.empty() && std::ssize(tokens_.ids) >= rows_ &&
         rows_ <= kMaxPathRows;
}

bool RoutingPredictor::HasRequests() const {
  return std::ssize(tokens_.request_odds) >= rows_ && rows_ <= kMaxPathRows;
}

// Of another number of rows than the step has, nobody knows whose they are.
void RoutingPredictor::LearnTokens(Layer& layer,
                                   std::span<const int32_t> chosen,
                                   int32_t rows) {
  const std::span<const int32_t> ids = tokens_.ids;
  if (layer.tokens.empty() || std::ssize(ids) != rows) return;
  const size_t k = static_cast<size_t>(layer.shape.top_k);
  for (size_t row = 0; row < ids.size(); ++row) {
    layer.tokens[0].Learn(ids[row], chosen.subspan(row * k, k));
  }
}

void RoutingPredictor::LearnPaths(int32_t index) {
  Layer& to = layers_[index];
  for (size_t h = 1; h <= to.tables.size(); ++h) {
    const Layer& from = layers_[index - static_cast<int32_t>(h)];
    if (!Follows(from)) continue;
    const size_t from_k = static_cast<size_t>(from.shape.top_k);
    const size_t to_k = static_cast<size_t>(to.shape.top_k);
    for (size_t row = 0; row < static_cast<size_t>(rows_); ++row) {
      to.tables[h - 1].Learn(
          std::span(from.chosen).subspan(row * from_k, from_k),
          std::span(to.chosen).subspan(row * to_k, to_k));
    }
  }
}

// Whether this step's tokens went through that layer, all of them.
bool RoutingPredictor::Follows(const Layer& layer) const {
  return layer.step == step_ && !Dense(layer) &&
         std::ssize(layer.chosen) == int64_t{rows_} * layer.shape.top_k;
}

bool RoutingPredictor::HasPath(const Query& query) const {
  const Layer& layer = layers_[query.layer];
  if (static_cast<size_t>(query.horizon) > layer.tables.size()) return false;
  return Follows(layers_[query.layer - query.horizon]) && rows_ <= kMaxPathRows;
}

void RoutingPredictor::Gather(const Query& query, int32_t row,
                              RowGuess& guess) {
  Layer& layer = layers_[query.layer];
  const int32_t experts = layer.shape.experts;
  const std::span<float> estimate = std::span(estimate_).first(experts);
  guess.row = {.experts = experts};
  Attach(guess.row, Evidence::kPopularity, layer.popularity.log_odds().data());
  costs_.Charge(Evidence::kPopularity);
  Attach(guess.row, Evidence::kRecent, layer.recent.log_odds().data());
  costs_.Charge(Evidence::kRecent);
  const size_t rows = static_cast<size_t>(rows_);
  const float* const request =
      HasRequests() ? tokens_.request_odds.last(rows)[row] : nullptr;
  if (request != nullptr) {
    Attach(guess.row, Evidence::kRequest,
           request + int64_t{query.layer} * std::ssize(used_));
    costs_.Charge(Evidence::kRequest);
  }
  if (HasPath(query)) {
    const Layer& from = layers_[query.layer - query.horizon];
    const size_t k = static_cast<size_t>(from.shape.top_k);
    layer.tables[query.horizon - 1].Estimate(
        std::span(from.chosen).subspan(static_cast<size_t>(row) * k, k),
        layer.popularity.shares(), estimate);
    for (int32_t e = 0; e < experts; ++e) {
      guess.path_odds[e] = LogOdds(estimate[e]);
    }
    Attach(guess.row, Evidence::kPath, guess.path_odds.data());
    costs_.Charge(Evidence::kPath);
  }
  if (!query.router_margins.empty() && rows_ <= kMaxPathRows) {
    const float* const margins =
        query.router_margins.data() + int64_t{row} * experts;
    for (int32_t e = 0; e < experts; ++e) {
      guess.router_odds[e] =
          std::min(std::max(margins[e], -kMaxLogOdds), kMaxLogOdds);
    }
    Attach(guess.row, Evidence::kRouter, guess.router_odds.data());
    costs_.Charge(Evidence::kRouter);
  }
  if (HasIds(layer)) {
    const int32_t id = tokens_.ids.last(rows)[row];
    if (layer.tokens[0].Estimate(id, layer.popularity.shares(), estimate)) {
      for (int32_t e = 0; e < experts; ++e) {
        guess.token_odds[e] = LogOdds(estimate[e]);
      }
      Attach(guess.row, Evidence::kToken, guess.token_odds.data());
    }
    costs_.Charge(Evidence::kToken);
  }
  guess.row.present &= config_.evidence;
  weights_[query.horizon - 1].Combine(guess.row, guess.combined);
  costs_.ChargeCombined();
}

std::span<const ExpertGuess> RoutingPredictor::Guess(const Query& query) {
  Layer& layer = layers_[query.layer];
  CHECK(query.horizon >= 1 && query.horizon <= reach()) << query.horizon;
  guesses_.clear();
  if (Dense(layer)) {
    guesses_.push_back({.expert = 0, .probability = 1});
    return guesses_;
  }
  const int32_t experts = layer.shape.experts;
  const bool by_row = HasPath(query) || HasIds(layer) || HasRequests() ||
                      !query.router_margins.empty();
  // Rows of which nothing of their own is known look all alike.
  const int32_t distinct = by_row ? std::min(rows_, kMaxPathRows) : 1;
  const float alike = static_cast<float>(rows_) / static_cast<float>(distinct);
  std::fill_n(unused_.begin(), experts, 1.0f);
  costs_.Start();
  for (int32_t row = 0; row < distinct; ++row) {
    RowGuess& guess = row == 0 ? layer.pending[query.horizon - 1] : row_guess_;
    Gather(query, row, guess);
    for (int32_t e = 0; e < experts; ++e) {
      unused_[e] *= 1 - Probability(guess.combined[e]);
    }
  }
  if (alike > 1) {
    for (int32_t e = 0; e < experts; ++e) {
      unused_[e] = std::pow(unused_[e], alike);
    }
  }
  for (int32_t e = 0; e < experts; ++e) {
    const float probability = 1 - unused_[e];
    if (probability >= config_.min_probability) {
      guesses_.push_back({.expert = e, .probability = probability});
    }
  }
  std::ranges::sort(guesses_, [](const ExpertGuess& a, const ExpertGuess& b) {
    return a.probability != b.probability ? a.probability > b.probability
                                          : a.expert < b.expert;
  });
  costs_.ChargeCombined();
  return guesses_;
}

const GuessCounts& RoutingPredictor::counts(Evidence evidence,
                                            int32_t horizon) const {
  return counts_[horizon - 1].evidence[Index(evidence)];
}

const GuessCounts& RoutingPredictor::combined_counts(int32_t horizon) const {
  return counts_[horizon - 1].combined;
}

std::vector<RoutingShape::Layer> RoutingPredictor::layers() const {
  std::vector<RoutingShape::Layer> shapes;
  for (const Layer& layer : layers_) shapes.push_back(layer.shape);
  return shapes;
}

void RoutingPredictor::RestorePopularity(int32_t layer,
                                         std::span<const float> shares) {
  layers_[layer].popularity.Restore(shares);
  layers_[layer].recent.Restore(shares);
}

int64_t RoutingPredictor::bytes() const {
  int64_t bytes = 0;
  for (const Layer& layer : layers_) {
    for (const ConditionalTable& table : layer.tables) {
      bytes += static_cast<int64_t>(table.counts().size_bytes());
    }
    for (const TokenExperts& tokens : layer.tokens) bytes += tokens.bytes();
    bytes += static_cast<int64_t>(layer.chosen.capacity() * sizeof(int32_t));
    bytes += static_cast<int64_t>(layer.pending.size() * 4 + 4) *
             layer.shape.experts * static_cast<int64_t>(sizeof(float));
  }
  return bytes;
}

}  // namespace bullpen
