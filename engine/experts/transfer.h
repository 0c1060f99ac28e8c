#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/experts/blob_reader.h"
#include "engine/experts/expert.h"

namespace bullpen {

enum class Cause : uint8_t { kDemand, kPrefetch };

// One copy of an expert from a slower place into a slot.
struct TransferJob {
  uint64_t ticket = 0;  // the caller's name for it
  ExpertLocation source;
  std::byte* target = nullptr;  // 4096-aligned
  int64_t bytes = 0;
  Cause cause = Cause::kDemand;
};

struct TransferResult {
  uint64_t ticket = 0;
  absl::Status status;  // DataLoss: unreadable, or a wrong checksum
  double seconds = 0;   // from the first byte asked to the last one checked
};

struct TransferConfig {
  int32_t threads = 2;
  int32_t capacity = 1024;  // jobs queued or running
  int64_t chunk_bytes = int64_t{1} << 20;  // a demand waits for one chunk at most
};

// The transfer threads. They alone touch file handles; jobs and results cross
// in two bounded queues. Submit, Promote, Poll and Wait are for one thread
// (the engine's).
class TransferQueue {
 public:
  TransferQueue(BlobReader& reader, const TransferConfig& config);
  ~TransferQueue();  // Runs what is running, drops what is queued.
  TransferQueue(const TransferQueue&) = delete;
  TransferQueue& operator=(const TransferQueue&) = delete;

  // ResourceExhausted when `capacity` jobs are under way. Demands go before
  // prefetches, and overtake a running prefetch at its next chunk.
  absl::Status Submit(const TransferJob& job);
  // A prefetch that is now needed becomes a demand.
  void Promote(uint64_t ticket);
  // Moves finished jobs into `out` (appended). Wait blocks until at least one
  // is there; CHECKs that something is under way.
  void Poll(std::vector<TransferResult>& out);
  void Wait(std::vector<TransferResult>& out);
  int32_t under_way() const;

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

}  // namespace bullpen
