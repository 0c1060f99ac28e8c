#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "boost/asio/steady_timer.hpp"
#include "boost/asio/thread_pool.hpp"
#include "bullpen/v1/inference.grpc.pb.h"
#include "server/grpc_budget.h"
#include "server/grpc_writes.h"
#include "server/service.h"

namespace bullpen {

class GenerateCall;

// All Generate calls under way. One writer thread alone changes their state:
// gRPC's threads and the engine only post to it, so the calls need no lock.
// Worker threads do what takes long (templates, tokenising).
class GenerateCalls {
 public:
  GenerateCalls(Service& service, PendingWrites& writes);
  // By now gRPC's server is shut down and the engine is stopped, so that
  // nothing posts any more. Runs what was posted.
  ~GenerateCalls();

  // A gRPC thread; does not block. A call without a share is answered with
  // what it has instead.
  grpc::ServerWriteReactor<v1::GenerateResponse>* Start(
      const grpc::CallbackServerContext& context,
      const v1::GenerateRequest& request,
      absl::StatusOr<CallBudget::Share> share);

  // Any thread. The writer runs its work in the order it was posted.
  void PostToWorker(absl::AnyInvocable<void()> work);
  void PostToWriter(absl::AnyInvocable<void()> work);

 private:
  friend class GenerateCall;

  // Writer thread: looks for writes that take too long, now and then.
  void WatchWrites();
  // Writer thread: the stream of call `id` has something, if it still is there.
  void Ready(uint64_t id);
  // Writer thread: destroys the call if gRPC and the engine are done with it.
  void EraseIfOver(uint64_t id);

  Service& service_;
  PendingWrites& writes_;
  std::atomic<uint64_t> next_id_{0};
  std::unordered_map<uint64_t, std::unique_ptr<GenerateCall>> calls_;
  boost::asio::thread_pool workers_;
  boost::asio::thread_pool writer_;
  boost::asio::steady_timer next_look_{writer_};
  bool ending_ = false;
};

}  // namespace bullpen
