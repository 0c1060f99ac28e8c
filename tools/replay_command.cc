#include "tools/replay_command.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/experts/trace_file.h"
#include "nlohmann/json.hpp"
#include "tools/line_chart.h"
#include "tools/progress.h"
#include "tools/write_output.h"

namespace bullpen {
namespace {

constexpr size_t kMaxRuns = 10000;

const std::map<std::string, PolicyKind> kPolicies = {
    {"crf", PolicyKind::kCrf},       {"lru", PolicyKind::kLru},
    {"lfu", PolicyKind::kLfu},       {"static", PolicyKind::kStatic},
    {"belady", PolicyKind::kBelady},
};

struct PredictorChoice {
  GuesserKind kind;
  EvidenceSet evidence;
};
const std::map<std::string, PredictorChoice> kPredictors = {
    {"none", {GuesserKind::kNone, 0}},
    {"learned", {GuesserKind::kLearned, kAllEvidence}},
    {"path", {GuesserKind::kLearned, Bit(Evidence::kPath)}},
    {"popularity", {GuesserKind::kLearned, Bit(Evidence::kPopularity)}},
    {"recent", {GuesserKind::kLearned, Bit(Evidence::kRecent)}},
    {"token", {GuesserKind::kLearned, Bit(Evidence::kToken)}},
    {"oracle", {GuesserKind::kOracle, 0}},
};

std::string Percent(double share) {
  return absl::StrFormat("%.2f %%", share * 100);
}

const char* Division(int32_t floor) { return floor > 0 ? "shared" : "layer"; }

// What a perfect overlap of computing and moving would give with these loads.
double BoundTokensPerSecond(const ReplayReport& report) {
  const double bound =
      std::max(report.compute_seconds, report.link_busy_seconds);
  return bound == 0 ? 0 : static_cast<double>(report.tokens) / bound;
}

nlohmann::ordered_json ToJson(const ReplayReport& report) {
  return {{"tokens", report.tokens},
          {"lookups", report.lookups},
          {"hits", report.hits()},
          {"resident", report.resident},
          {"prefetched", report.prefetched},
          {"prefetched_late", report.prefetched_late},
          {"missed", report.missed},
          {"hit_rate", report.hit_rate()},
          {"loads", report.loads},
          {"bytes", report.bytes()},
          {"bytes_demand", report.bytes_demand},
          {"bytes_prefetch_used", report.bytes_prefetch_used},
          {"bytes_prefetch_wasted", report.bytes_prefetch_wasted},
          {"seconds", report.seconds},
          {"stall_seconds", report.stall_seconds},
          {"compute_seconds", report.compute_seconds},
          {"link_busy_seconds", report.link_busy_seconds},
          {"tokens_per_second", report.tokens_per_second()},
          {"bound_tokens_per_second", BoundTokensPerSecond(report)}};
}

}  // namespace

ReplayCommand::ReplayCommand(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand(
      "replay", "Replay a routing trace against an expert cache");
  command->add_option("TRACE", trace_, "the trace, binary or CSV")->required();
  command
      ->add_option("--policy", policies_,
                   "crf (decayed frequency and who follows whom: what the "
                   "server does), lru, lfu, "
                   "static or belady (these two know the future); a list such "
                   "as lru,crf replays each")
      ->delimiter(',')
      ->allow_extra_args(false)  // the trace may follow
      ->check(CLI::IsMember(kPolicies))
      ->capture_default_str();
  command
      ->add_option("--predictor", predictors_,
                   "none; learned (all that a trace can teach), or path, "
                   "popularity, recent, token (of a trace with token ids) "
                   "alone; oracle (knows the future). A list replays each")
      ->delimiter(',')
      ->allow_extra_args(false)  // the trace may follow
      ->check(CLI::IsMember(kPredictors))
      ->capture_default_str();
  AddSlotFlags(*command);
  AddRunFlags(*command);
  command->add_flag("--json", json_, "print one JSON object");
  command->add_option("--csv", csv_, "write a table to this file");
  command->add_option("--svg", svg_, "plot hit rate over slots to this file");
  command->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

void ReplayCommand::AddSlotFlags(CLI::App& command) {
  command
      .add_option("--slots-per-layer", slots_,
                  "experts that each layer can hold; 0: twice those that a "
                  "token uses. A list replays each")
      ->delimiter(',')
      ->allow_extra_args(false)  // the trace may follow
      ->capture_default_str();
  command
      .add_option("--expert-slots", divisions_,
                  "whose the slots are: each layer's own (layer), or moving to "
                  "the layers that need them (shared). A list replays each")
      ->delimiter(',')
      ->allow_extra_args(false)  // the trace may follow
      ->check(CLI::IsMember({"layer", "shared"}))
      ->capture_default_str();
  command
      .add_option("--layer-floor", layer_floor_,
                  "of shared: slots that each layer keeps; 0: one for each "
                  "expert that a token uses")
      ->capture_default_str();
}

void ReplayCommand::AddRunFlags(CLI::App& command) {
  command
      .add_option("--half-life", config_.policy.half_life_tokens,
                  "of crf, in tokens, which is then frequency alone; 0: its "
                  "rule is chosen while it runs")
      ->check(Between(0, 1e9))
      ->capture_default_str();
  command.add_option("--phase", phase_, "the rows to replay")
      ->check(CLI::IsMember({"prefill", "decode", "all"}))
      ->capture_default_str();
  command
      .add_option("--horizon", config_.predictor.horizon,
                  "layers ahead that are guessed")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  command
      .add_option("--prefetch", prefetch_,
                  "load what is guessed: auto (while it pays, as the server "
                  "does) or on")
      ->check(CLI::IsMember({"auto", "on"}))
      ->capture_default_str();
  command
      .add_option("--min-probability", config_.predictor.min_probability,
                  "of a guess that is prefetched")
      ->check(Between(0, 1))
      ->capture_default_str();
  command
      .add_option("--oracle-recall", config_.oracle_recall,
                  "share of its guesses that are right")
      ->check(Between(0, 1))
      ->capture_default_str();
  command.add_option("--seed", config_.seed, "of the oracle's mistakes")
      ->capture_default_str();
  AddFlag(command, "link-rate", link_rate_,
          "of the slower place, such as 1GiB/s; 0: transfers take no time");
  command
      .add_option("--compute-us", compute_us_,
                  "microseconds that a layer computes for one token")
      ->check(Between(0, 1e9))
      ->capture_default_str();
  command
      .add_option("--prompt-us", prompt_us_,
                  "the same for a token of a prompt; 0: an eighth")
      ->check(Between(0, 1e9))
      ->capture_default_str();
}

absl::StatusOr<int32_t> ReplayCommand::FloorOf(
    const std::string& division, int32_t slots,
    const RoutingTrace& trace) const {
  if (division == "layer") return 0;
  if (layer_floor_ == 0) return std::min(trace.top_k(), slots);
  if (layer_floor_ >= 1 && layer_floor_ <= slots) return layer_floor_;
  return absl::InvalidArgumentError(
      absl::StrCat("--layer-floor is ", layer_floor_, ", not 1 to ", slots,
                   ", the slots of --slots-per-layer"));
}

absl::StatusOr<std::vector<ReplayCommand::Row>> ReplayCommand::Combinations(
    const RoutingTrace& trace) const {
  if (layer_floor_ != 0 && std::ranges::count(divisions_, "shared") == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--layer-floor is ", layer_floor_, " without --expert-slots shared"));
  }
  std::vector<Row> rows;
  for (const std::string& policy : policies_) {
    for (const std::string& predictor : predictors_) {
      if (predictor == "token" && trace.vocab() == 0) {
        return absl::FailedPreconditionError(
            absl::StrCat("--predictor token: ", trace_.string(),
                         " has no token ids; record one with "
                         "--record-routing and --record-token-ids"));
      }
      for (int32_t slots : slots_) {
        if (slots == 0) slots = std::min(2 * trace.top_k(), trace.experts());
        if (slots < 1 || slots > trace.experts()) {
          return absl::InvalidArgumentError(
              absl::StrCat("--slots-per-layer is ", slots, ", not 1 to ",
                           trace.experts(), ", the experts of a layer"));
        }
        for (const std::string& division : divisions_) {
          ASSIGN_OR_RETURN(const int32_t floor,
                           FloorOf(division, slots, trace));
          rows.push_back({.policy = policy,
                          .predictor = predictor,
                          .slots = slots,
                          .floor = floor});
        }
      }
    }
  }
  if (rows.size() > kMaxRuns) {
    return absl::InvalidArgumentError(
        absl::StrCat("the lists make ", rows.size(),
                     " combinations, more than the limit of ", kMaxRuns));
  }
  return rows;
}

ReplayConfig ReplayCommand::ConfigOf(const Row& row) const {
  ReplayConfig config = config_;
  config.policy.kind = kPolicies.at(row.policy);
  config.slots_per_layer = row.slots;
  config.layer_floor = row.floor;
  const PredictorChoice& predictor = kPredictors.at(row.predictor);
  config.guesser = predictor.kind;
  config.governed = prefetch_ == "auto";
  config.predictor.evidence = predictor.evidence;
  if (phase_ == "prefill") config.phase = Phase::kPrefill;
  if (phase_ == "decode") config.phase = Phase::kDecode;
  config.link_bytes_per_second =
      static_cast<double>(link_rate_.bytes_per_second);
  config.layer_seconds = compute_us_ * 1e-6;
  config.prompt_row_seconds =
      (prompt_us_ > 0 ? prompt_us_ : compute_us_ / 8) * 1e-6;
  return config;
}

void ReplayCommand::RunAll(const RoutingTrace& trace,
                           std::vector<Row>& rows) const {
  std::map<std::pair<int32_t, int32_t>, double> belady;  // by slots and floor
  for (const Row& row : rows) belady[{row.slots, row.floor}] = 0;
  const int64_t runs = static_cast<int64_t>(rows.size() + belady.size());
  int64_t run = 0;
  Progress progress("replaying", Progress::Unit::kCount);
  const auto tell = [&](int64_t done, int64_t total) {
    progress.Update(run * total + done, runs * total);
  };
  for (auto& [division, hit_rate] : belady) {
    const ReplayConfig config = ConfigOf({.policy = "belady",
                                          .predictor = "none",
                                          .slots = division.first,
                                          .floor = division.second});
    hit_rate = Replay(trace, config, tell).hit_rate();
    ++run;
  }
  for (Row& row : rows) {
    row.report = Replay(trace, ConfigOf(row), tell);
    row.belady_hit_rate = belady[{row.slots, row.floor}];
    ++run;
  }
}

std::string ReplayCommand::Json(const RoutingTrace& trace,
                                const std::vector<Row>& rows) const {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const Row& row : rows) {
    nlohmann::ordered_json object = {
        {"policy", row.policy},     {"predictor", row.predictor},
        {"phase", phase_},          {"slots_per_layer", row.slots},
        {"layers", trace.layers()}, {"experts", trace.experts()}};
    object["expert_slots"] = Division(row.floor);
    if (row.floor > 0) object["layer_floor"] = row.floor;
    object.update(ToJson(row.report));
    object["belady_hit_rate"] = row.belady_hit_rate;
    all.push_back(std::move(object));
  }
  if (all.size() == 1) return all[0].dump() + "\n";
  return nlohmann::ordered_json{{"runs", all}}.dump() + "\n";
}

absl::Status ReplayCommand::Write(const RoutingTrace& trace,
                                  const std::vector<Row>& rows) const {
  if (!csv_.empty()) {
    std::string csv =
        "policy,predictor,slots_per_layer,layer_floor,belady_hit_rate";
    const nlohmann::ordered_json names = ToJson({});
    for (const auto& item : names.items()) csv += "," + item.key();
    csv += "\n";
    for (const Row& row : rows) {
      csv += absl::StrFormat("%s,%s,%d,%d,%.6f", row.policy, row.predictor,
                             row.slots, row.floor, row.belady_hit_rate);
      const nlohmann::ordered_json values = ToJson(row.report);
      for (const auto& item : values.items()) {
        csv += "," + item.value().dump();
      }
      csv += "\n";
    }
    RETURN_IF_ERROR(WriteOutput(csv_, csv));
  }
  if (svg_.empty()) return absl::OkStatus();
  std::map<std::string, ChartSeries> lines;
  for (const Row& row : rows) {
    const double share = 100.0 * row.slots / trace.experts();
    const std::string shared = row.floor > 0 ? ", shared" : "";
    const std::string name = row.predictor == "none"
                                 ? row.policy + shared
                                 : row.policy + " + " + row.predictor + shared;
    lines[name].points.emplace_back(share, 100 * row.report.hit_rate());
    lines["belady" + shared].points.emplace_back(share,
                                                 100 * row.belady_hit_rate);
  }
  std::vector<ChartSeries> series;
  for (auto& [name, line] : lines) {
    line.name = name;
    std::ranges::sort(line.points);
    const auto repeated = std::ranges::unique(line.points);
    line.points.erase(repeated.begin(), repeated.end());
    series.push_back(std::move(line));
  }
  return WriteOutput(
      svg_, LineChart({.title = trace_.filename().string() + ", " + phase_,
                       .x = "slots, % of a layer's experts",
                       .y = "hit rate, %"},
                      series));
}

void ReplayCommand::Print(const RoutingTrace& trace,
                          const std::vector<Row>& rows) const {
  if (json_) {
    std::fputs(Json(trace, rows).c_str(), stdout);
    return;
  }
  std::printf("%d layers of %d experts, %lld tokens (%s)\n", trace.layers(),
              trace.experts(), static_cast<long long>(rows[0].report.tokens),
              phase_.c_str());
  std::printf("%-7s %-10s %5s %5s %9s %9s %10s %9s %9s %9s %11s %9s\n",
              "policy", "predictor", "slots", "floor", "hit rate", "belady",
              "prefetched", "late", "missed", "loads", "bytes", "stall s");
  for (const Row& row : rows) {
    const ReplayReport& report = row.report;
    absl::PrintF(
        "%-7s %-10s %5d %5s %9s %9s %10d %9d %9d %9d %11s %9.3f", row.policy,
        row.predictor, row.slots, row.floor > 0 ? absl::StrCat(row.floor) : "-",
        Percent(report.hit_rate()), Percent(row.belady_hit_rate),
        report.prefetched, report.prefetched_late, report.missed, report.loads,
        FormatBytes(report.bytes()), report.stall_seconds);
    if (report.seconds > 0) {
      absl::PrintF("  %.2f tokens/s (bound %.2f)", report.tokens_per_second(),
                   BoundTokensPerSecond(report));
    }
    absl::PrintF("\n");
  }
}

absl::Status ReplayCommand::Run() const {
  RETURN_IF_ERROR(RefuseInput("--csv", csv_, trace_));
  RETURN_IF_ERROR(RefuseInput("--svg", svg_, trace_));
  ASSIGN_OR_RETURN(const RoutingTrace trace, ReadTrace(trace_));
  ASSIGN_OR_RETURN(std::vector<Row> rows, Combinations(trace));
  RunAll(trace, rows);
  Print(trace, rows);
  return Write(trace, rows);
}

}  // namespace bullpen
