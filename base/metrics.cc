#include "base/metrics.h"

#include <string>

namespace bullpen {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Labels;

prometheus::Counter& Count(prometheus::Registry& registry, const char* name,
                           const char* help, const Labels& labels = {}) {
  // Register() returns the same family for the same name and help.
  return BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Gauge& Level(prometheus::Registry& registry, const char* name,
                         const char* help) {
  return BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Histogram& Spread(prometheus::Registry& registry, const char* name,
                              const char* help, double least) {
  // 18 buckets, each twice the one before.
  prometheus::Histogram::BucketBoundaries bounds;
  for (int i = 0; i < 18; ++i) bounds.push_back(least * (1 << i));
  return BuildHistogram().Name(name).Help(help).Register(registry).Add({},
                                                                       bounds);
}

constexpr char kRejected[] = "bullpen_requests_rejected_total";
constexpr char kRejectedHelp[] = "Requests refused, by reason.";
constexpr char kFinished[] = "bullpen_requests_finished_total";
constexpr char kFinishedHelp[] = "Accepted requests that ended, by reason.";
constexpr char kLookups[] = "bullpen_expert_cache_lookups_total";
constexpr char kLookupsHelp[] =
    "Experts that a layer asked the cache for, by phase and result.";

}  // namespace

Metrics::Metrics()
    : requests_accepted(Count(registry_, "bullpen_requests_accepted_total",
                              "Requests taken into the queue.")),
      requests_rejected_full(Count(registry_, kRejected, kRejectedHelp,
                                   {{"reason", "queue_full"}})),
      requests_rejected_invalid(
          Count(registry_, kRejected, kRejectedHelp, {{"reason", "invalid"}})),
      requests_rejected_unavailable(Count(registry_, kRejected, kRejectedHelp,
                                          {{"reason", "unavailable"}})),
      finished_stop(
          Count(registry_, kFinished, kFinishedHelp, {{"reason", "stop"}})),
      finished_length(
          Count(registry_, kFinished, kFinishedHelp, {{"reason", "length"}})),
      finished_cancelled(Count(registry_, kFinished, kFinishedHelp,
                               {{"reason", "cancelled"}})),
      finished_deadline(
          Count(registry_, kFinished, kFinishedHelp, {{"reason", "deadline"}})),
      finished_error(
          Count(registry_, kFinished, kFinishedHelp, {{"reason", "error"}})),
      requests_waiting(Level(registry_, "bullpen_requests_waiting",
                             "Requests in the queue.")),
      requests_running(Level(registry_, "bullpen_requests_running",
                             "Requests that hold KV blocks.")),
      queue_seconds(Spread(registry_, "bullpen_request_queue_seconds",
                           "From acceptance to the first scheduled step.",
                           1e-4)),
      first_token_seconds(Spread(registry_,
                                 "bullpen_time_to_first_token_seconds",
                                 "From acceptance to the first token.", 1e-3)),
      inter_token_seconds(Spread(registry_, "bullpen_inter_token_seconds",
                                 "Between two tokens of one request.", 1e-4)),
      request_seconds(Spread(registry_, "bullpen_request_seconds",
                             "From acceptance to the last token.", 1e-3)),
      prompt_tokens(Count(registry_, "bullpen_prompt_tokens_total",
                          "Prompt tokens computed.")),
      generated_tokens(Count(registry_, "bullpen_generated_tokens_total",
                             "Tokens sampled.")),
      engine_steps(Count(registry_, "bullpen_engine_steps_total",
                         "Forward passes of the engine.")),
      preemptions(Count(registry_, "bullpen_preemptions_total",
                        "Sequences put back because KV blocks ran out.")),
      kv_blocks_used(Level(registry_, "bullpen_kv_blocks_used",
                           "KV blocks held by sequences.")),
      kv_blocks_total(
          Level(registry_, "bullpen_kv_blocks", "KV blocks in the pool.")),
      lookups_resident_decode(
          Count(registry_, kLookups, kLookupsHelp,
                {{"phase", "decode"}, {"result", "resident"}})),
      lookups_missed_decode(Count(registry_, kLookups, kLookupsHelp,
                                  {{"phase", "decode"}, {"result", "missed"}})),
      lookups_resident_prefill(
          Count(registry_, kLookups, kLookupsHelp,
                {{"phase", "prefill"}, {"result", "resident"}})),
      lookups_missed_prefill(
          Count(registry_, kLookups, kLookupsHelp,
                {{"phase", "prefill"}, {"result", "missed"}})),
      transfer_bytes_demand(
          Count(registry_, "bullpen_expert_transfer_bytes_total",
                "Bytes of experts moved, by cause.",
                {{"from", "disk"}, {"to", "ram"}, {"cause", "demand"}})),
      stall_seconds(Count(registry_, "bullpen_expert_stall_seconds_total",
                          "Time the engine waited for experts.")),
      expert_load_failures(
          Count(registry_, "bullpen_expert_load_failures_total",
                "Experts that could not be read or had a wrong checksum.")),
      transfer_seconds(Spread(registry_, "bullpen_expert_transfer_seconds",
                              "From the start of an expert's read to its end.",
                              1e-5)),
      expert_slots(
          Level(registry_, "bullpen_expert_slots", "Slots for experts.")),
      expert_slots_resident(Level(registry_, "bullpen_expert_slots_resident",
                                  "Slots that hold an expert.")),
      expert_slot_bytes(Level(registry_, "bullpen_expert_slots_bytes",
                              "Memory of all slots.")),
      http_connections(Level(registry_, "bullpen_http_connections",
                             "Open HTTP connections.")),
      http_responses(BuildCounter()
                         .Name("bullpen_http_responses_total")
                         .Help("HTTP responses, by status code.")
                         .Register(registry_)) {}

}  // namespace bullpen
