#pragma once

#include <array>
#include <memory>
#include <string>

#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace bullpen {

// Every metric of the server, declared once; the unit is in the name. Any
// thread may update them (prometheus-cpp's own atomics). One per process, made
// in main and passed down; tests make their own.
class Metrics {
 public:
  Metrics();

  prometheus::Registry& registry() { return registry_; }

 private:
  prometheus::Registry registry_;

 public:
  // Requests. Labels in braces are spelled out in metrics.cc.
  prometheus::Counter& requests_accepted;  // bullpen_requests_accepted_total
  prometheus::Counter&
      requests_rejected_full;  // bullpen_requests_rejected_total{reason="queue_full"}
  prometheus::Counter& requests_rejected_invalid;  // ... {reason="invalid"}
  prometheus::Counter&
      requests_rejected_unavailable;  // ... {reason="unavailable"}
  prometheus::Counter&
      finished_stop;  // bullpen_requests_finished_total{reason="stop"}
  prometheus::Counter& finished_length;     // ... {reason="length"}
  prometheus::Counter& finished_cancelled;  // ... {reason="cancelled"}
  prometheus::Counter& finished_deadline;   // ... {reason="deadline"}
  prometheus::Counter& finished_error;      // ... {reason="error"}
  prometheus::Gauge& requests_waiting;      // bullpen_requests_waiting
  prometheus::Gauge& requests_running;      // bullpen_requests_running
  prometheus::Histogram& queue_seconds;     // bullpen_request_queue_seconds
  prometheus::Histogram&
      first_token_seconds;  // bullpen_time_to_first_token_seconds
  prometheus::Histogram& inter_token_seconds;  // bullpen_inter_token_seconds
  prometheus::Histogram& request_seconds;      // bullpen_request_seconds

  // Tokens and steps.
  prometheus::Counter& prompt_tokens;     // bullpen_prompt_tokens_total
  prometheus::Counter& generated_tokens;  // bullpen_generated_tokens_total
  prometheus::Counter& engine_steps;      // bullpen_engine_steps_total
  prometheus::Counter& preemptions;       // bullpen_preemptions_total

  // KV cache.
  prometheus::Gauge& kv_blocks_used;   // bullpen_kv_blocks_used
  prometheus::Gauge& kv_blocks_total;  // bullpen_kv_blocks
  prometheus::Family<prometheus::Gauge>&
      kv_bytes;  // bullpen_kv_bytes{type="f32"}

  // Experts.
  struct Lookups {
    prometheus::Counter& resident;
    prometheus::Counter& prefetched;       // a guess that had arrived
    prometheus::Counter& prefetched_late;  // one that was under way
    prometheus::Counter& missed;
  };
  Lookups
      lookups_decode;  // bullpen_expert_cache_lookups_total{phase="decode",result="resident"}
  Lookups lookups_prefill;  // ... {phase="prefill",result="resident"}
  prometheus::Family<prometheus::Counter>&
      layer_lookups;  // bullpen_expert_cache_layer_lookups_total{layer="0"}
  prometheus::Family<prometheus::Counter>&
      layer_hits;  // bullpen_expert_cache_layer_hits_total{layer="0"}
  prometheus::Family<prometheus::Gauge>&
      layer_slots;  // bullpen_expert_cache_layer_slots{layer="0"}
  struct TransferBytes {
    prometheus::Counter& demand;
    prometheus::Counter& prefetch_used;
    prometheus::Counter& prefetch_wasted;  // evicted unused, or cancelled
  };
  // bullpen_expert_transfer_bytes_total{from="disk",to="ram",cause="demand"}
  TransferBytes TransferBytesBetween(const std::string& from,
                                     const std::string& to);
  prometheus::Counter&
      stall_seconds_decode;  // bullpen_expert_stall_seconds_total{phase="decode"}
  prometheus::Counter& stall_seconds_prefill;  // ... {phase="prefill"}
  prometheus::Counter&
      evictions_demand;  // bullpen_expert_evictions_total{reason="demand"}
  prometheus::Counter& evictions_prefetch;  // ... {reason="prefetch"}
  prometheus::Counter&
      link_busy_seconds;  // bullpen_expert_link_busy_seconds_total
  prometheus::Counter&
      expert_load_failures;  // bullpen_expert_load_failures_total
  prometheus::Histogram& transfer_seconds;   // bullpen_expert_transfer_seconds
  prometheus::Gauge& expert_slots;           // bullpen_expert_slots
  prometheus::Gauge& expert_slots_resident;  // bullpen_expert_slots_resident
  prometheus::Gauge& expert_slots_loading;   // bullpen_expert_slots_loading
  prometheus::Gauge& expert_slot_bytes;      // bullpen_expert_slots_bytes
  struct StateBytes {
    prometheus::Gauge& empty;
    prometheus::Gauge& loading;
    prometheus::Gauge& resident;
  };
  StateBytes state_bytes;  // bullpen_expert_slots_state_bytes{state="empty"}
  prometheus::Gauge& prefetch_on;  // bullpen_expert_prefetch_on
  prometheus::Family<prometheus::Gauge>&
      predictor_precision;  // bullpen_expert_predictor_precision{predictor="router",horizon="1"}
  prometheus::Family<prometheus::Gauge>&
      predictor_recall;  // bullpen_expert_predictor_recall{...}
  prometheus::Family<prometheus::Counter>&
      predictor_seconds;  // bullpen_expert_predictor_seconds_total{predictor="router"}
  prometheus::Family<prometheus::Gauge>&
      oracle_hits;  // bullpen_expert_cache_oracle_hit_ratio{rule="belady"}
  prometheus::Family<prometheus::Gauge>&
      segment_routing;  // bullpen_expert_segment_routing_ratio{layer="0"}
  prometheus::Family<prometheus::Gauge>&
      segment_hits;  // bullpen_expert_segment_cache_hit_ratio{layer="0"}

  // HTTP and gRPC.
  prometheus::Gauge& http_connections;  // bullpen_http_connections
  prometheus::Family<prometheus::Counter>&
      http_responses;  // bullpen_http_responses_total{code="200"}
};

}  // namespace bullpen
