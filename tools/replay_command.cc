#include "tools/replay_command.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status.h"
#include "base/strings.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

constexpr int64_t kMaxTraceBytes = int64_t{4} << 30;

const std::map<std::string, PolicyKind> kPolicies = {
    {"crf", PolicyKind::kCrf},       {"lru", PolicyKind::kLru},
    {"lfu", PolicyKind::kLfu},       {"static", PolicyKind::kStatic},
    {"belady", PolicyKind::kBelady},
};

std::string Percent(double share) {
  return absl::StrCat(static_cast<double>(std::lround(share * 10000)) / 100,
                      " %");
}

}  // namespace

ReplayCommand::ReplayCommand(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand(
      "replay", "Replay a routing trace against an expert cache");
  command->add_option("TRACE", trace_, "the trace, CSV")->required();
  command
      ->add_option("--policy", policy_,
                   "crf (decayed frequency, what the server does), lru, lfu, "
                   "static or belady (these two know the future)")
      ->check(CLI::IsMember(kPolicies))
      ->capture_default_str();
  command
      ->add_option("--slots-per-layer", config_.slots_per_layer,
                   "experts that each layer can hold; 0: twice those that a "
                   "token uses")
      ->capture_default_str();
  command
      ->add_option("--half-life", config_.policy.half_life_tokens,
                   "of crf, in tokens")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--phase", phase_, "the rows to replay")
      ->check(CLI::IsMember({"prefill", "decode", "all"}))
      ->capture_default_str();
  command->add_flag("--json", json_, "print one JSON object");
  command->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::Status ReplayCommand::Run() const {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(trace_, kMaxTraceBytes));
  ASSIGN_OR_RETURN(const RoutingTrace trace, RoutingTrace::ParseCsv(text));
  ReplayConfig config = config_;
  config.policy.kind = kPolicies.at(policy_);
  if (config.slots_per_layer == 0) {
    config.slots_per_layer = std::min(2 * trace.top_k(), trace.experts());
  }
  if (config.slots_per_layer < 1 || config.slots_per_layer > trace.experts()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--slots-per-layer is ", config.slots_per_layer, ", not 1 to ",
        trace.experts(), ", the experts of a layer"));
  }
  if (phase_ == "prefill") config.phase = Phase::kPrefill;
  if (phase_ == "decode") config.phase = Phase::kDecode;

  const ReplayReport report = Replay(trace, config);
  ReplayConfig best = config;
  best.policy.kind = PolicyKind::kBelady;
  const ReplayReport bound = Replay(trace, best);
  if (json_) {
    const nlohmann::ordered_json object = {
        {"policy", policy_},
        {"phase", phase_},
        {"slots_per_layer", config.slots_per_layer},
        {"layers", trace.layers()},
        {"experts", trace.experts()},
        {"tokens", report.tokens},
        {"lookups", report.lookups},
        {"hits", report.hits},
        {"loads", report.loads},
        {"bytes", report.bytes},
        {"hit_rate", report.hit_rate()},
        {"belady_hit_rate", bound.hit_rate()},
    };
    std::printf("%s\n", object.dump().c_str());
    return absl::OkStatus();
  }
  std::printf("%d layers of %d experts, %d slots each, %lld tokens (%s)\n",
              trace.layers(), trace.experts(), config.slots_per_layer,
              static_cast<long long>(report.tokens), phase_.c_str());
  std::printf("%-8s %10s %10s %10s %12s %9s\n", "policy", "lookups", "hits",
              "loads", "bytes", "hit rate");
  const std::pair<std::string, ReplayReport> rows[] = {{policy_, report},
                                                       {"belady", bound}};
  for (const auto& [name, row] : rows) {
    std::printf(
        "%-8s %10lld %10lld %10lld %12s %9s\n", name.c_str(),
        static_cast<long long>(row.lookups), static_cast<long long>(row.hits),
        static_cast<long long>(row.loads), FormatBytes(row.bytes).c_str(),
        Percent(row.hit_rate()).c_str());
  }
  return absl::OkStatus();
}

}  // namespace bullpen
