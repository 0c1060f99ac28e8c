#include "tools/analyze_command.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <system_error>
#include <vector>

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

using Json = nlohmann::ordered_json;

constexpr size_t kSegment = 1;  // of kSegments, for the table: 16 tokens
constexpr size_t kRatios = 4;   // cache sizes: 1 to 4 times k

std::vector<int32_t> CacheSizes(const RoutingTrace& trace) {
  std::vector<int32_t> slots;
  for (int32_t times = 1; times <= static_cast<int32_t>(kRatios); ++times) {
    slots.push_back(std::min(times * trace.top_k(), trace.experts()));
  }
  slots.push_back(std::max(trace.experts() / 4, 1));
  slots.push_back(std::max(trace.experts() / 2, 1));
  std::ranges::sort(slots);
  const auto repeated = std::ranges::unique(slots);
  slots.erase(repeated.begin(), repeated.end());
  return slots;
}

Json ToJson(const RoutingFigures& figures, const std::vector<int32_t>& slots) {
  Json srp = Json::object();
  Json sch = Json::object();
  for (size_t m = 0; m < kSegments.size(); ++m) {
    const std::string segment = std::to_string(kSegments[m]);
    if (figures.segments[m].has_value()) {
      srp[segment] = {{"srp", figures.segments[m]->srp},
                      {"ratio", figures.segments[m]->ratio}};
    }
    for (size_t i = 0; i < slots.size(); ++i) {
      sch[segment][std::to_string(slots[i])] = figures.segment_cache[m][i];
    }
  }
  Json overlap = Json::object();
  for (size_t i = 0; i < kLags.size(); ++i) {
    overlap[std::to_string(kLags[i])] = figures.overlap[i];
  }
  Json affinity = Json::object();
  for (size_t i = 0; i < kHops.size(); ++i) {
    affinity[std::to_string(kHops[i])] = {{"told", figures.affinity[i]},
                                          {"untold", figures.affinity_base[i]}};
  }
  return {{"tokens", figures.tokens},
          {"used_experts", figures.used_experts},
          {"effective_experts", figures.effective_experts},
          {"top_quarter_share", figures.top_quarter_share},
          {"srp_by_segment", srp},
          {"sch_by_segment_and_slots", sch},
          {"overlap_by_lag", overlap},
          {"affinity_by_hop", affinity},
          {"working_set_after_powers_of_two", figures.working_set}};
}

void PrintRow(const std::string& name, const RoutingFigures& figures,
              size_t twice_k) {
  const auto& segment = figures.segments[kSegment];
  absl::PrintF(
      "%-6s %8d %6d %6.1f %8.1f %8s %6s %8.1f %8.1f %8.1f\n", name,
      figures.tokens, figures.used_experts, figures.effective_experts,
      100 * figures.top_quarter_share,
      segment.has_value() ? absl::StrFormat("%.1f", 100 * segment->srp) : "-",
      segment.has_value() ? absl::StrFormat("%.2f", segment->ratio) : "-",
      100 * figures.segment_cache[kSegment][twice_k], 100 * figures.overlap[0],
      100 * figures.affinity[0]);
}

std::vector<ChartSeries> SkewByLayer(const RoutingAnalysis& analysis,
                                     int32_t experts) {
  ChartSeries quarter{.name = "uses of the top quarter", .points = {}};
  ChartSeries effective{.name = "effective of all experts", .points = {}};
  for (size_t l = 0; l < analysis.layers.size(); ++l) {
    const RoutingFigures& layer = analysis.layers[l];
    if (layer.tokens == 0) continue;
    quarter.points.emplace_back(l, 100 * layer.top_quarter_share);
    effective.points.emplace_back(l, 100 * layer.effective_experts / experts);
  }
  return {quarter, effective};
}

std::vector<ChartSeries> Affinity(const RoutingFigures& figures) {
  ChartSeries told{.name = "told an expert of the token", .points = {}};
  ChartSeries untold{.name = "untold", .points = {}};
  for (size_t i = 0; i < kHops.size(); ++i) {
    if (figures.affinity_base[i] == 0) continue;  // too few layers
    told.points.emplace_back(kHops[i], 100 * figures.affinity[i]);
    untold.points.emplace_back(kHops[i], 100 * figures.affinity_base[i]);
  }
  return {told, untold};
}

}  // namespace

AnalyzeCommand::AnalyzeCommand(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand(
      "analyze", "Say how well recorded routing suits a cache of experts");
  command->add_option("TRACE", trace_, "the trace, binary or CSV")->required();
  command->add_option("--phase", phase_, "the rows to look at")
      ->check(CLI::IsMember({"prefill", "decode", "all"}))
      ->capture_default_str();
  command->add_flag("--json", json_, "print one JSON object");
  command->add_option("--plots", plots_,
                      "write SVG plots into this directory: sch.svg, srp.svg, "
                      "working_set.svg, skew.svg, overlap.svg, affinity.svg");
  command->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::Status AnalyzeCommand::Plot(const RoutingTrace& trace,
                                  const RoutingAnalysis& analysis) const {
  std::error_code error;
  std::filesystem::create_directories(plots_, error);
  if (error) {
    return absl::PermissionDeniedError(absl::StrCat(
        "--plots: cannot make '", plots_.string(), "': ", error.message()));
  }
  const RoutingFigures& whole = analysis.whole;
  std::vector<ChartSeries> sch;
  ChartSeries srp{.name = "SRP", .points = {}};
  for (size_t m = 0; m < kSegments.size(); ++m) {
    ChartSeries& line =
        sch.emplace_back(absl::StrCat("the next ", kSegments[m], " tokens"));
    for (size_t i = 0; i < analysis.slots.size(); ++i) {
      line.points.emplace_back(100.0 * analysis.slots[i] / trace.experts(),
                               100 * whole.segment_cache[m][i]);
    }
    if (whole.segments[m].has_value()) {
      srp.points.emplace_back(kSegments[m], 100 * whole.segments[m]->srp);
    }
  }
  ChartSeries growth{.name = "distinct experts", .points = {}};
  for (size_t i = 0; i < whole.working_set.size(); ++i) {
    growth.points.emplace_back(static_cast<double>(int64_t{1} << i),
                               whole.working_set[i]);
  }
  ChartSeries overlap{.name = "same experts", .points = {}};
  for (size_t i = 0; i < kLags.size(); ++i) {
    overlap.points.emplace_back(kLags[i], 100 * whole.overlap[i]);
  }
  const std::vector<ChartSeries> skew = SkewByLayer(analysis, trace.experts());
  const std::vector<ChartSeries> affinity = Affinity(whole);
  const std::string name = trace_.filename().string();
  const auto write = [&](const char* file, const ChartLabels& labels,
                         std::span<const ChartSeries> series) {
    return WriteOutput(plots_ / file, LineChart(labels, series));
  };
  RETURN_IF_ERROR(write("sch.svg",
                        {.title = "Segment cache hit rate, " + name,
                         .x = "slots, % of a layer's experts",
                         .y = "hit rate, %"},
                        sch));
  RETURN_IF_ERROR(write("srp.svg",
                        {.title = "Segment routing best performance, " + name,
                         .x = "tokens of a segment",
                         .y = "F1, %"},
                        std::span(&srp, 1)));
  RETURN_IF_ERROR(write("working_set.svg",
                        {.title = "Working set, " + name,
                         .x = "tokens",
                         .y = "distinct experts of a layer"},
                        std::span(&growth, 1)));
  RETURN_IF_ERROR(write(
      "skew.svg", {.title = "Skew, " + name, .x = "layer", .y = "%"}, skew));
  RETURN_IF_ERROR(write("overlap.svg",
                        {.title = "Overlap with an earlier token, " + name,
                         .x = "tokens back",
                         .y = "of a token's experts, %"},
                        std::span(&overlap, 1)));
  return write("affinity.svg",
               {.title = "Affinity of layers, " + name,
                .x = "layers ahead",
                .y = "the likeliest expert's share of tokens, %"},
               affinity);
}

void AnalyzeCommand::Print(const RoutingTrace& trace,
                           const RoutingAnalysis& analysis) const {
  const std::vector<int32_t>& slots = analysis.slots;
  if (json_) {
    Json layers = Json::array();
    for (const RoutingFigures& figures : analysis.layers) {
      layers.push_back(ToJson(figures, slots));
    }
    const Json object = {{"phase", phase_},
                         {"experts", trace.experts()},
                         {"top_k", trace.top_k()},
                         {"slots", slots},
                         {"whole", ToJson(analysis.whole, slots)},
                         {"layers", layers}};
    std::printf("%s\n", object.dump().c_str());
    return;
  }
  const size_t twice_k = static_cast<size_t>(
      std::ranges::find(slots, std::min(2 * trace.top_k(), trace.experts())) -
      slots.begin());
  absl::PrintF("%d layers of %d experts, %d of them a token (%s)\n",
               trace.layers(), trace.experts(), trace.top_k(), phase_);
  absl::PrintF("%-6s %8s %6s %6s %8s %8s %6s %8s %8s %8s\n", "layer", "tokens",
               "used", "effect", "top 1/4", "SRP 16", "ratio", "SCH 16,2",
               "lag 1", "affin 1");
  for (size_t l = 0; l < analysis.layers.size(); ++l) {
    PrintRow(std::to_string(l), analysis.layers[l], twice_k);
  }
  PrintRow("all", analysis.whole, twice_k);
}

absl::Status AnalyzeCommand::Run() const {
  ASSIGN_OR_RETURN(const RoutingTrace trace, ReadTrace(trace_));
  std::optional<Phase> phase;
  if (phase_ == "prefill") phase = Phase::kPrefill;
  if (phase_ == "decode") phase = Phase::kDecode;
  const std::vector<int32_t> slots = CacheSizes(trace);
  Progress progress("analysing layers", Progress::Unit::kCount);
  const RoutingAnalysis analysis = AnalyzeRouting(
      trace, slots, phase, [&progress](int64_t done, int64_t total) {
        progress.Update(done, total);
      });
  progress.Finish();
  Print(trace, analysis);
  return plots_.empty() ? absl::OkStatus() : Plot(trace, analysis);
}

}  // namespace bullpen
