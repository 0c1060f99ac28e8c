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

constexpr char kBytes[] = "bullpen_expert_transfer_bytes_total";
constexpr char kBytesHelp[] =
    "Bytes of experts moved, by cause; those of a guess count when it is used "
    "or evicted.";
constexpr char kStalls[] = "bullpen_expert_stall_seconds_total";
constexpr char kStallsHelp[] = "Time the engine waited for experts, by phase.";
constexpr char kEvictions[] = "bullpen_expert_evictions_total";
constexpr char kEvictionsHelp[] =
    "Experts that lost their slot, by what took it.";

Metrics::Lookups LookupsOf(prometheus::Registry& registry, const char* phase) {
  const auto count = [&](const char* result) -> prometheus::Counter& {
    return Count(registry, kLookups, kLookupsHelp,
                 {{"phase", phase}, {"result", result}});
  };
  return {count("resident"), count("prefetched"), count("prefetched_late"),
          count("missed")};
}

Metrics::StateBytes StateBytesOf(prometheus::Registry& registry) {
  const auto level = [&](const char* state) -> prometheus::Gauge& {
    return BuildGauge()
        .Name("bullpen_expert_slots_state_bytes")
        .Help("Memory of the slots that are empty, loading or resident.")
        .Register(registry)
        .Add({{"state", state}});
  };
  return {level("empty"), level("loading"), level("resident")};
}

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
      kv_blocks_total(Level(registry_, "bullpen_kv_blocks",
                            "KV blocks there are, of all groups of layers.")),
      kv_bytes(BuildGauge()
                   .Name("bullpen_kv_bytes")
                   .Help("Memory of the KV cache, by its type.")
                   .Register(registry_)),
      lookups_decode(LookupsOf(registry_, "decode")),
      lookups_prefill(LookupsOf(registry_, "prefill")),
      layer_lookups(BuildCounter()
                        .Name("bullpen_expert_cache_layer_lookups_total")
                        .Help("Experts that each layer asked the cache for.")
                        .Register(registry_)),
      layer_hits(BuildCounter()
                     .Name("bullpen_expert_cache_layer_hits_total")
                     .Help("Those of them that were there.")
                     .Register(registry_)),
      layer_slots(BuildGauge()
                      .Name("bullpen_expert_cache_layer_slots")
                      .Help("Slots that each layer has now.")
                      .Register(registry_)),
      stall_seconds_decode(
          Count(registry_, kStalls, kStallsHelp, {{"phase", "decode"}})),
      stall_seconds_prefill(
          Count(registry_, kStalls, kStallsHelp, {{"phase", "prefill"}})),
      evictions_demand(
          Count(registry_, kEvictions, kEvictionsHelp, {{"reason", "demand"}})),
      evictions_prefetch(Count(registry_, kEvictions, kEvictionsHelp,
                               {{"reason", "prefetch"}})),
      link_busy_seconds(Count(registry_,
                              "bullpen_expert_link_busy_seconds_total",
                              "Time in which at least one expert was being "
                              "read: its rate is the link's utilisation.")),
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
      expert_slots_loading(Level(registry_, "bullpen_expert_slots_loading",
                                 "Slots whose expert is on its way.")),
      expert_slot_bytes(Level(registry_, "bullpen_expert_slots_bytes",
                              "Memory of all slots.")),
      state_bytes(StateBytesOf(registry_)),
      prefetch_on(Level(registry_, "bullpen_expert_prefetch_on",
                        "1 while experts are loaded ahead; 0 where that has "
                        "not paid of late, or is switched off.")),
      predictor_precision(
          BuildGauge()
              .Name("bullpen_expert_predictor_precision")
              .Help("Share of guesses that were right, by predictor and layers "
                    "ahead.")
              .Register(registry_)),
      predictor_recall(BuildGauge()
                           .Name("bullpen_expert_predictor_recall")
                           .Help("Share of the experts used that were guessed.")
                           .Register(registry_)),
      predictor_seconds(
          BuildCounter()
              .Name("bullpen_expert_predictor_seconds_total")
              .Help("Time that guessing takes the engine, by predictor, "
                    "estimated from one step of 16.")
              .Register(registry_)),
      oracle_hits(BuildGauge()
                      .Name("bullpen_expert_cache_oracle_hit_ratio")
                      .Help("Hits over lookups of the last decoded tokens: "
                            "the cache's own (live), and what other rules "
                            "would have had with the same slots.")
                      .Register(registry_)),
      segment_routing(
          BuildGauge()
              .Name("bullpen_expert_segment_routing_ratio")
              .Help("SRP of the last decoded tokens: the best F1 of a router "
                    "that decides once for 16 tokens, by layer.")
              .Register(registry_)),
      segment_hits(BuildGauge()
                       .Name("bullpen_expert_segment_cache_hit_ratio")
                       .Help("SCH of the last decoded tokens: hits over "
                             "lookups of a cache of the layer's slots that "
                             "sees 16 tokens ahead.")
                       .Register(registry_)),
      http_connections(Level(registry_, "bullpen_http_connections",
                             "Open HTTP connections.")),
      http_responses(BuildCounter()
                         .Name("bullpen_http_responses_total")
                         .Help("HTTP responses, by status code.")
                         .Register(registry_)) {}

Metrics::TransferBytes Metrics::TransferBytesBetween(const std::string& from,
                                                     const std::string& to) {
  const auto count = [&](const char* cause) -> prometheus::Counter& {
    return Count(registry_, kBytes, kBytesHelp,
                 {{"from", from}, {"to", to}, {"cause", cause}});
  };
  return {count("demand"), count("prefetch_used"), count("prefetch_wasted")};
}

}  // namespace bullpen
