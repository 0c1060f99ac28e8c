#include "engine/experts/trace.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/experts/limits.h"

namespace bullpen {
namespace {

// Below them, no later sum overflows.
constexpr int32_t kMaxStep = 1 << 30;
constexpr int64_t kMaxExpertBytes = int64_t{1} << 40;

constexpr int32_t kMaxToken = (1 << 30) - 1;

constexpr std::string_view kNames = "turn,phase,step,layer,slot,expert,weight";
constexpr std::string_view kTokenName = "token_id";
enum Field { kTurn, kPhase, kStep, kLayer, kSlot, kExpert, kFields };
constexpr std::array<std::string_view, kFields> kFieldNames = {
    "turn", "phase", "step", "layer", "slot", "expert"};

// Takes what stands before `separator` off the front of `text`.
std::string_view TakeUntil(std::string_view& text, char separator) {
  const size_t end = std::min(text.find(separator), text.size());
  const std::string_view taken = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return taken;
}

template <typename Number>
bool Parse(std::string_view text, Number& value) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end && !text.empty();
}

}  // namespace

class TraceCsvReader {
 public:
  absl::StatusOr<RoutingTrace> Read(std::string_view text) {
    if (!text.starts_with("# route_trace v1")) {
      return absl::InvalidArgumentError(
          "not a routing trace: its first line is not \"# route_trace v1\"");
    }
    while (!text.empty()) {
      std::string_view line = TakeUntil(text, '\n');
      ++line_;
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (line.empty()) continue;
      if (line.front() == '#') {
        RETURN_IF_ERROR(ReadComment(line.substr(1)));
      } else if (!named_) {
        if (!line.starts_with(kNames)) {
          return Wrong("names", line, absl::StrCat("\"", Absl(kNames), "\""));
        }
        named_ = true;
        FindTokenColumn(line.substr(kNames.size()));
      } else {
        RETURN_IF_ERROR(ReadRow(line));
      }
    }
    return Finish();
  }

 private:
  absl::Status Wrong(std::string_view field, std::string_view value,
                     std::string allowed) const {
    return absl::InvalidArgumentError(
        absl::StrCat("routing trace, line ", line_, ": ", Absl(field), " is \"",
                     Absl(value.substr(0, 40)), "\", not ", allowed));
  }

  // Of the columns behind the weight.
  void FindTokenColumn(std::string_view names) {
    if (!names.starts_with(',')) return;
    names.remove_prefix(1);
    for (int32_t column = 0; !names.empty(); ++column) {
      if (TakeUntil(names, ',') == kTokenName) token_column_ = column;
    }
  }

  // key=value pairs; those that are not known are somebody else's. What is
  // stated behind rows must hold for them too.
  absl::Status ReadComment(std::string_view line) {
    int64_t layer = -1;
    while (!line.empty()) {
      std::string_view value = TakeUntil(line, ' ');
      const std::string_view key = TakeUntil(value, '=');
      if (key == "n_layer") {
        RETURN_IF_ERROR(
            ReadNumber(key, value, top_layer_ + 1, kMaxLayers, layers_));
      } else if (key == "n_expert") {
        RETURN_IF_ERROR(ReadNumber(key, value, top_expert_ + 1,
                                   kMaxExpertsPerLayer, experts_));
      } else if (key == "layer") {
        RETURN_IF_ERROR(ReadNumber(key, value, 0, kMaxLayers - 1, layer));
      } else if (key == "expert_bytes" && layer >= 0) {
        int64_t bytes = 0;
        RETURN_IF_ERROR(ReadNumber(key, value, 0, kMaxExpertBytes, bytes));
        std::vector<int64_t>& all = trace_.expert_bytes_;
        all.resize(std::max(all.size(), static_cast<size_t>(layer) + 1));
        all[layer] = bytes;
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadNumber(std::string_view name, std::string_view text,
                          int64_t low, int64_t high, int64_t& value) const {
    if (Parse(text, value) && value >= low && value <= high) {
      return absl::OkStatus();
    }
    return Wrong(name, text, absl::StrCat("a number from ", low, " to ", high));
  }

  absl::Status ReadRow(std::string_view line) {
    const std::array<int64_t, kFields> limits = {
        kMaxStep,
        1,
        kMaxStep,
        (layers_ > 0 ? layers_ : kMaxLayers) - 1,
        kMaxExpertsPerLayer,
        (experts_ > 0 ? experts_ : kMaxExpertsPerLayer) - 1};
    std::array<int64_t, kFields> row;
    for (int f = 0; f < kFields; ++f) {
      RETURN_IF_ERROR(ReadNumber(kFieldNames[f], TakeUntil(line, ','), 0,
                                 limits[f], row[f]));
    }
    const std::string_view text = TakeUntil(line, ',');
    float weight = 0;
    if (!Parse(text, weight) || !std::isfinite(weight)) {
      return Wrong("weight", text, "a finite number");
    }
    int64_t token = -1;
    for (int32_t column = 0; column < token_column_; ++column) {
      TakeUntil(line, ',');
    }
    if (token_column_ >= 0) {
      RETURN_IF_ERROR(
          ReadNumber(kTokenName, TakeUntil(line, ','), 0, kMaxToken, token));
      trace_.vocab_ = std::max(trace_.vocab_, static_cast<int32_t>(token) + 1);
    }
    return Add(row, weight, static_cast<int32_t>(token));
  }

  absl::Status Add(const std::array<int64_t, kFields>& row, float weight,
                   int32_t token) {
    std::vector<RoutingTrace::Choice>& choices = trace_.choices_;
    if (row[kSlot] == 0) {
      choices.push_back(
          {.turn = static_cast<int32_t>(row[kTurn]),
           .phase = row[kPhase] == 0 ? Phase::kPrefill : Phase::kDecode,
           .step = static_cast<int32_t>(row[kStep]),
           .layer = static_cast<int32_t>(row[kLayer]),
           .token = token,
           .first = static_cast<int64_t>(trace_.chosen_.size())});
    }
    const int32_t rank = choices.empty() ? 0 : choices.back().count;
    if (choices.empty() || row[kSlot] != rank) {
      return Wrong("slot", std::to_string(row[kSlot]),
                   absl::StrCat(rank, ", the next of its block, or 0"));
    }
    RoutingTrace::Choice& choice = choices.back();
    if (row[kTurn] != choice.turn || row[kStep] != choice.step ||
        row[kLayer] != choice.layer || token != choice.token) {
      return Wrong("slot", std::to_string(row[kSlot]),
                   "0, where a token or layer begins");
    }
    const int32_t expert = static_cast<int32_t>(row[kExpert]);
    if (std::ranges::count(trace_.chosen(choice), expert) > 0) {
      return Wrong("expert", std::to_string(expert),
                   "one that this token has not chosen yet");
    }
    trace_.chosen_.push_back(expert);
    trace_.weights_.push_back(weight);
    trace_.top_k_ = std::max(trace_.top_k_, ++choice.count);
    top_expert_ = std::max(top_expert_, expert);
    top_layer_ = std::max(top_layer_, choice.layer);
    return absl::OkStatus();
  }

  absl::StatusOr<RoutingTrace> Finish() {
    if (trace_.choices_.empty()) {
      return absl::InvalidArgumentError("the routing trace has no rows");
    }
    trace_.expert_bytes_.resize(
        static_cast<size_t>(layers_ > 0 ? layers_ : top_layer_ + 1));
    trace_.experts_ =
        experts_ > 0 ? static_cast<int32_t>(experts_) : top_expert_ + 1;
    const int64_t pairs = TracePairs(trace_.layers(), trace_.experts_);
    if (pairs > kMaxTracePairs) {
      return absl::InvalidArgumentError(
          absl::StrCat("routing trace: n_layer * n_expert^2 is ", pairs, " (",
                       trace_.layers(), " layers of ", trace_.experts_,
                       " experts), more than the limit of ", kMaxTracePairs));
    }
    return std::move(trace_);
  }

  RoutingTrace trace_;
  int64_t line_ = 0;
  bool named_ = false;
  int32_t token_column_ = -1;  // behind the weight; -1: there is none
  // As the comments say; 0: they do not, and the rows show it.
  int64_t layers_ = 0;
  int64_t experts_ = 0;
  int32_t top_layer_ = 0;
  int32_t top_expert_ = 0;
};

RoutingTrace::RoutingTrace(int32_t experts, std::vector<int64_t> expert_bytes)
    : experts_(experts), expert_bytes_(std::move(expert_bytes)) {}

absl::Status RoutingTrace::Add(const Choice& choice,
                               std::span<const int32_t> experts,
                               std::span<const float> weights) {
  if (choice.layer < 0 || choice.layer >= layers()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", choice.layer, " of a routing trace of ", layers()));
  }
  if (experts.empty() || experts.size() != weights.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a token with ", experts.size(), " experts and ",
                     weights.size(), " weights"));
  }
  if (choice.token < -1 || choice.token > kMaxToken ||
      (!choices_.empty() && (choice.token >= 0) != (vocab_ > 0))) {
    return absl::InvalidArgumentError(
        absl::StrCat("token id ", choice.token, " is not in 0..", kMaxToken,
                     ", or only some tokens have one"));
  }
  for (size_t i = 0; i < experts.size(); ++i) {
    if (experts[i] < 0 || experts[i] >= experts_ ||
        std::ranges::count(experts.first(i), experts[i]) > 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("expert ", experts[i],
                       " is chosen twice or is not below ", experts_));
    }
    if (!std::isfinite(weights[i])) {
      return absl::InvalidArgumentError("a weight that is not finite");
    }
  }
  choices_.push_back(choice);
  choices_.back().first = static_cast<int64_t>(chosen_.size());
  choices_.back().count = static_cast<int32_t>(experts.size());
  top_k_ = std::max(top_k_, choices_.back().count);
  vocab_ = std::max(vocab_, choice.token + 1);
  chosen_.insert(chosen_.end(), experts.begin(), experts.end());
  weights_.insert(weights_.end(), weights.begin(), weights.end());
  return absl::OkStatus();
}

std::string RoutingTrace::ToCsv() const {
  std::string csv =
      absl::StrCat("# route_trace v1\n# model=bullpen n_layer=", layers(),
                   " n_expert=", experts_, " n_expert_used=", top_k_, "\n");
  for (int32_t l = 0; l < layers(); ++l) {
    absl::StrAppend(&csv, "# layer=", l, " expert_bytes=", expert_bytes_[l],
                    "\n");
  }
  absl::StrAppend(&csv, Absl(kNames));
  if (vocab_ > 0) absl::StrAppend(&csv, ",", Absl(kTokenName));
  csv += '\n';
  for (const Choice& choice : choices_) {
    const bool decode = choice.phase == Phase::kDecode;
    for (int32_t rank = 0; rank < choice.count; ++rank) {
      const size_t at = static_cast<size_t>(choice.first + rank);
      // Nine digits bring a float back as it was.
      absl::StrAppendFormat(&csv, "%d,%d,%d,%d,%d,%d,%.9g", choice.turn,
                            decode ? 1 : 0, choice.step, choice.layer, rank,
                            chosen_[at], weights_[at]);
      if (vocab_ > 0) absl::StrAppend(&csv, ",", choice.token);
      csv += '\n';
    }
  }
  return csv;
}

absl::StatusOr<RoutingTrace> RoutingTrace::ParseCsv(std::string_view text) {
  return TraceCsvReader().Read(text);
}

}  // namespace bullpen
