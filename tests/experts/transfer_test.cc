#include "engine/experts/transfer.h"

#include <algorithm>
#include <map>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/huge_buffer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_blob_reader.h"

namespace bullpen {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kBlob = 16384;
constexpr int32_t kExperts = 16;

// A layer of blobs of four chunks each, and a slot for each of them.
class TransferTest : public ::testing::Test {
 protected:
  TransferTest()
      : model_(MakeFakeModel(
            {.layers = 1, .experts = kExperts, .blob_bytes = kBlob}, 5)),
        reader_(model_.files),
        arena_(*HugeBuffer::Allocate(kBlob * kExperts)) {}

  TransferJob Job(int32_t expert, Cause cause) const {
    return {.ticket = static_cast<uint64_t>(expert),
            .source = model_.catalog.layers[0].experts[expert],
            .target = arena_.data() + expert * kBlob,
            .bytes = kBlob,
            .cause = cause};
  }
  bool Arrived(int32_t expert) const {
    return std::ranges::equal(std::span(arena_.data() + expert * kBlob, kBlob),
                              model_.Blob(0, expert));
  }
  // The experts whose chunks were read, in order, runs of one shown once.
  std::vector<int32_t> ReadOrder() const {
    std::vector<int32_t> order;
    for (const FakeBlobReader::Place& place : reader_.log()) {
      const int32_t expert =
          static_cast<int32_t>(place.offset / kBlob * 2 + place.file);
      if (order.empty() || order.back() != expert) order.push_back(expert);
    }
    return order;
  }
  static std::map<uint64_t, absl::Status> WaitFor(TransferQueue& queue,
                                                  size_t count) {
    std::vector<TransferResult> results;
    while (results.size() < count) queue.Wait(results);
    std::map<uint64_t, absl::Status> by_ticket;
    for (const TransferResult& result : results) {
      EXPECT_GE(result.seconds, 0);
      by_ticket[result.ticket] = result.status;
    }
    return by_ticket;
  }

  const TransferConfig one_thread_{.threads = 1, .chunk_bytes = 4096};
  FakeModel model_;
  FakeBlobReader reader_;
  HugeBuffer arena_;
};

TEST_F(TransferTest, MovesEachBlobToItsTarget) {
  TransferQueue queue(reader_, {.threads = 2, .chunk_bytes = 4096});
  for (int32_t e = 0; e < kExperts; ++e) {
    const Cause cause = e % 3 == 0 ? Cause::kPrefetch : Cause::kDemand;
    ASSERT_TRUE(queue.Submit(Job(e, cause)).ok());
  }
  EXPECT_EQ(queue.under_way(), kExperts);
  for (const auto& [ticket, status] : WaitFor(queue, kExperts)) {
    EXPECT_TRUE(status.ok()) << ticket << ": " << status;
    EXPECT_TRUE(Arrived(static_cast<int32_t>(ticket)));
  }
  EXPECT_EQ(queue.under_way(), 0);
}

TEST_F(TransferTest, PollTakesOnlyWhatHasFinished) {
  reader_.CloseGate();
  TransferQueue queue(reader_, one_thread_);
  ASSERT_TRUE(queue.Submit(Job(1, Cause::kDemand)).ok());
  reader_.AwaitAtGate(1);
  std::vector<TransferResult> results;
  queue.Poll(results);
  EXPECT_TRUE(results.empty());
  EXPECT_EQ(queue.under_way(), 1);
  reader_.OpenGate();
  WaitFor(queue, 1);
}

TEST_F(TransferTest, AllThreadsReadTheFirstJob) {
  reader_.CloseGate();
  TransferQueue queue(reader_, {.threads = 2, .chunk_bytes = 4096});
  ASSERT_TRUE(queue.Submit(Job(0, Cause::kDemand)).ok());
  ASSERT_TRUE(queue.Submit(Job(2, Cause::kDemand)).ok());
  reader_.AwaitAtGate(2);
  EXPECT_THAT(ReadOrder(), ElementsAre(0));  // both reads that wait there
  reader_.LetPass(2);
  std::vector<TransferResult> results;
  queue.Wait(results);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].ticket, 0u);
  EXPECT_TRUE(Arrived(0));
  reader_.OpenGate();
  WaitFor(queue, 1);
  EXPECT_THAT(ReadOrder(), ElementsAre(0, 2));
}

TEST_F(TransferTest, ACancelledPrefetchIsReadNoFurther) {
  reader_.CloseGate();
  TransferQueue queue(reader_, one_thread_);
  ASSERT_TRUE(queue.Submit(Job(0, Cause::kPrefetch)).ok());
  ASSERT_TRUE(queue.Submit(Job(1, Cause::kPrefetch)).ok());
  ASSERT_TRUE(queue.Submit(Job(2, Cause::kPrefetch)).ok());
  reader_.AwaitAtGate(1);  // the first chunk of 0
  EXPECT_TRUE(queue.Cancel(0));
  EXPECT_FALSE(queue.Cancel(0));
  EXPECT_TRUE(queue.Cancel(1));
  std::vector<TransferResult> results;
  queue.Poll(results);  // of 1 nothing was being read
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].ticket, 1u);
  EXPECT_EQ(results[0].bytes, 0);
  EXPECT_TRUE(absl::IsCancelled(results[0].status)) << results[0].status;
  reader_.OpenGate();
  results.clear();
  while (queue.under_way() > 0) queue.Wait(results);
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].ticket, 0u);
  EXPECT_EQ(results[0].bytes, 4096);
  EXPECT_TRUE(absl::IsCancelled(results[0].status)) << results[0].status;
  EXPECT_TRUE(results[1].status.ok()) << results[1].status;
  EXPECT_TRUE(Arrived(2));
  EXPECT_THAT(ReadOrder(), ElementsAre(0, 2));
  // The link's time is still that in which it reads.
  const double busy = queue.busy_seconds();
  EXPECT_EQ(queue.busy_seconds(), busy);
  ASSERT_TRUE(queue.Submit(Job(3, Cause::kDemand)).ok());
  WaitFor(queue, 1);
  EXPECT_GT(queue.busy_seconds(), busy);
}

TEST_F(TransferTest, ADemandIsCancelledAsAPrefetchIs) {
  reader_.CloseGate();
  TransferQueue queue(reader_, one_thread_);
  ASSERT_TRUE(queue.Submit(Job(0, Cause::kDemand)).ok());
  ASSERT_TRUE(queue.Submit(Job(1, Cause::kPrefetch)).ok());
  ASSERT_TRUE(queue.Submit(Job(2, Cause::kDemand)).ok());
  queue.Promote(1);
  reader_.AwaitAtGate(1);
  EXPECT_FALSE(queue.Cancel(0));  // all of it is being read
  EXPECT_TRUE(queue.Cancel(1));
  EXPECT_TRUE(queue.Cancel(2));
  reader_.OpenGate();
  for (const auto& [ticket, status] : WaitFor(queue, 3)) {
    EXPECT_EQ(absl::IsCancelled(status), ticket > 0) << ticket;
  }
  EXPECT_THAT(ReadOrder(), ElementsAre(0));
  const double demand = queue.demand_seconds();
  EXPECT_EQ(queue.demand_seconds(), demand);  // none is under way
}

TEST_F(TransferTest, AWaitEndsWithAResultOrWhenItIsToldTo) {
  reader_.CloseGate();
  TransferQueue queue(reader_, one_thread_);
  ASSERT_TRUE(queue.Submit(Job(0, Cause::kDemand)).ok());
  std::vector<TransferResult> results;
  std::stop_source stop;
  {
    const std::jthread other([&] {
      reader_.AwaitAtGate(1);
      stop.request_stop();
    });
    queue.Wait(results, stop.get_token());
  }
  EXPECT_THAT(results, IsEmpty());
  EXPECT_EQ(queue.under_way(), 1);
  reader_.OpenGate();
  queue.Wait(results);
  EXPECT_EQ(results.size(), 1u);
}

TEST_F(TransferTest, DemandTimeRunsFromSubmitOrPromoteToTheEnd) {
  reader_.CloseGate();
  TransferQueue queue(reader_, one_thread_);
  ASSERT_TRUE(queue.Submit(Job(0, Cause::kPrefetch)).ok());
  reader_.AwaitAtGate(1);
  EXPECT_EQ(queue.demand_seconds(), 0);
  queue.Promote(0);
  const double before = queue.demand_seconds();
  while (queue.demand_seconds() == before) {
  }
  reader_.OpenGate();
  WaitFor(queue, 1);
  const double after = queue.demand_seconds();
  EXPECT_GT(after, before);
  EXPECT_EQ(queue.demand_seconds(), after);
  EXPECT_LE(after, queue.busy_seconds());
}

TEST_F(TransferTest, DemandTimeIsThatInWhichAnyIsUnderWay) {
  reader_.CloseGate();
  TransferQueue queue(reader_, one_thread_);
  const auto pass_time = [&] {
    const double now = queue.demand_seconds();
    while (queue.demand_seconds() == now) {
    }
    return queue.demand_seconds();
  };
  ASSERT_TRUE(queue.Submit(Job(0, Cause::kDemand)).ok());
  reader_.AwaitAtGate(1);
  queue.Promote(0);  // a demand already
  const double first = pass_time();
  EXPECT_GT(queue.busy_seconds(), 0);
  ASSERT_TRUE(queue.Submit(Job(1, Cause::kDemand)).ok());
  EXPECT_GE(queue.demand_seconds(), first);
  reader_.LetPass(1);
  WaitFor(queue, 1);
  const double second = pass_time();  // of the other one
  EXPECT_GT(second, first);
  reader_.OpenGate();
  WaitFor(queue, 1);
  const double end = queue.demand_seconds();
  EXPECT_GT(end, second);
  EXPECT_EQ(queue.demand_seconds(), end);
}

TEST_F(TransferTest, APrefetchWhoseLastChunkIsReadBecomesADemandToo) {
  reader_.CloseGate();
  TransferQueue queue(reader_, {.threads = 1, .chunk_bytes = kBlob});
  ASSERT_TRUE(queue.Submit(Job(0, Cause::kPrefetch)).ok());
  reader_.AwaitAtGate(1);
  queue.Promote(0);
  reader_.OpenGate();
  std::vector<TransferResult> results;
  queue.Wait(results);
  EXPECT_EQ(results[0].cause, Cause::kDemand);
  EXPECT_GT(queue.demand_seconds(), 0);
  EXPECT_GT(results[0].seconds, 0);
}

TEST(GuessChunkBytes, IsAQuarterOfAnExpertWithinItsBounds) {
  constexpr int64_t kKiB = 1024;
  EXPECT_EQ(GuessChunkBytes(4 * kKiB), 4 * kKiB);
  EXPECT_EQ(GuessChunkBytes(400 * kKiB), 256 * kKiB);
  EXPECT_EQ(GuessChunkBytes(2048 * kKiB), 512 * kKiB);
  EXPECT_EQ(GuessChunkBytes(2060 * kKiB), 512 * kKiB);  // whole pages
  EXPECT_EQ(GuessChunkBytes(9000 * kKiB), 1024 * kKiB);
}

TEST_F(TransferTest, AJobFailsOnceHoweverManyOfItsChunksAreBeingRead) {
  const ExpertLocation& place = model_.catalog.layers[0].experts[0];
  for (const int64_t offset : {0, 4096, 8192, 12288}) {
    reader_.SetStatus(place.file, place.offset + offset,
                      absl::DataLossError("unreadable"));
  }
  TransferQueue queue(reader_, {.threads = 4, .chunk_bytes = 4096});
  for (int round = 0; round < 50; ++round) {
    ASSERT_TRUE(queue.Submit(Job(0, Cause::kDemand)).ok());
    ASSERT_TRUE(queue.Submit(Job(2, Cause::kPrefetch)).ok());
    auto results = WaitFor(queue, 2);
    EXPECT_TRUE(absl::IsDataLoss(results[0])) << results[0];
    EXPECT_TRUE(results[2].ok()) << results[2];
    EXPECT_EQ(queue.under_way(), 0);
  }
}

TEST_F(TransferTest, ADemandOvertakesARunningPrefetchAtItsNextChunk) {
  reader_.CloseGate();
  TransferQueue queue(reader_, one_thread_);
  ASSERT_TRUE(queue.Submit(Job(0, Cause::kPrefetch)).ok());
  ASSERT_TRUE(queue.Submit(Job(2, Cause::kPrefetch)).ok());
  reader_.AwaitAtGate(1);
  reader_.LetPass(1);
  reader_.AwaitAtGate(1);  // the second of four chunks
  ASSERT_TRUE(queue.Submit(Job(4, Cause::kDemand)).ok());
  reader_.OpenGate();
  for (const auto& [ticket, status] : WaitFor(queue, 3)) {
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(Arrived(static_cast<int32_t>(ticket)));
  }
  EXPECT_THAT(ReadOrder(), ElementsAre(0, 4, 0, 2));
  // It went on where it had stopped: nothing was read twice.
  EXPECT_EQ(reader_.log().size(), 4u + 4u + 1u);
}

TEST_F(TransferTest, DemandsGoBeforeQueuedPrefetches) {
  reader_.CloseGate();
  TransferQueue queue(reader_, one_thread_);
  ASSERT_TRUE(queue.Submit(Job(0, Cause::kDemand)).ok());
  reader_.AwaitAtGate(1);
  ASSERT_TRUE(queue.Submit(Job(2, Cause::kPrefetch)).ok());
  ASSERT_TRUE(queue.Submit(Job(4, Cause::kDemand)).ok());
  ASSERT_TRUE(queue.Submit(Job(6, Cause::kDemand)).ok());
  reader_.OpenGate();
  WaitFor(queue, 4);
  EXPECT_THAT(ReadOrder(), ElementsAre(0, 4, 6, 2));
}

TEST_F(TransferTest, APromotedPrefetchOvertakesTheOthers) {
  reader_.CloseGate();
  TransferQueue queue(reader_, one_thread_);
  ASSERT_TRUE(queue.Submit(Job(0, Cause::kPrefetch)).ok());
  reader_.AwaitAtGate(1);
  ASSERT_TRUE(queue.Submit(Job(2, Cause::kPrefetch)).ok());
  ASSERT_TRUE(queue.Submit(Job(4, Cause::kPrefetch)).ok());
  queue.Promote(4);
  queue.Promote(4);
  queue.Promote(77);  // unknown: no harm
  reader_.OpenGate();
  WaitFor(queue, 3);
  EXPECT_THAT(ReadOrder(), ElementsAre(0, 4, 0, 2));
}

TEST_F(TransferTest, APromotedRunningPrefetchNoLongerGivesWay) {
  reader_.CloseGate();
  TransferQueue queue(reader_, one_thread_);
  ASSERT_TRUE(queue.Submit(Job(0, Cause::kPrefetch)).ok());
  reader_.AwaitAtGate(1);
  queue.Promote(0);
  ASSERT_TRUE(queue.Submit(Job(2, Cause::kDemand)).ok());
  reader_.OpenGate();
  std::vector<TransferResult> results;
  while (results.size() < 2) queue.Wait(results);
  EXPECT_THAT(ReadOrder(), ElementsAre(0, 2));
  for (const TransferResult& result : results) {
    EXPECT_EQ(result.cause, Cause::kDemand);
  }
}

TEST_F(TransferTest, AFullQueueRefusesAndSaysHowMuchFits) {
  reader_.CloseGate();
  TransferQueue queue(reader_, {.threads = 1, .capacity = 2});
  ASSERT_TRUE(queue.Submit(Job(0, Cause::kDemand)).ok());
  ASSERT_TRUE(queue.Submit(Job(1, Cause::kPrefetch)).ok());
  const absl::Status full = queue.Submit(Job(2, Cause::kDemand));
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  EXPECT_THAT(std::string(full.message()), HasSubstr("limit is 2"));
  reader_.OpenGate();
  WaitFor(queue, 2);
  EXPECT_TRUE(queue.Submit(Job(2, Cause::kDemand)).ok());
  WaitFor(queue, 1);
}

TEST_F(TransferTest, AWrongChecksumIsDataLoss) {
  const ExpertLocation& place = model_.catalog.layers[0].experts[3];
  reader_.FlipByte(place.file, place.offset + 9000);
  TransferQueue queue(reader_, one_thread_);
  ASSERT_TRUE(queue.Submit(Job(3, Cause::kDemand)).ok());
  ASSERT_TRUE(queue.Submit(Job(5, Cause::kDemand)).ok());
  auto results = WaitFor(queue, 2);
  EXPECT_TRUE(absl::IsDataLoss(results[3])) << results[3];
  EXPECT_THAT(std::string(results[3].message()), HasSubstr("wrong checksum"));
  EXPECT_TRUE(results[5].ok()) << results[5];
}

TEST_F(TransferTest, AChecksumIsComparedOnlyWhereThatIsAsked) {
  const ExpertLocation& place = model_.catalog.layers[0].experts[3];
  reader_.FlipByte(place.file, place.offset + 9000);
  TransferQueue queue(reader_, {.threads = 2, .chunk_bytes = 4096});
  TransferJob job = Job(3, Cause::kDemand);
  job.verify = false;
  ASSERT_TRUE(queue.Submit(job).ok());
  EXPECT_TRUE(WaitFor(queue, 1)[3].ok());
  const auto right = model_.Blob(0, 3);
  EXPECT_EQ(job.target[8999], right[8999]);
  EXPECT_NE(job.target[9000], right[9000]);
  EXPECT_EQ(job.target[right.size() - 1], right[right.size() - 1]);

  const ExpertLocation& unreadable = model_.catalog.layers[0].experts[4];
  reader_.SetStatus(unreadable.file, unreadable.offset,
                    absl::DataLossError("bad disk"));
  job = Job(4, Cause::kDemand);
  job.verify = false;
  ASSERT_TRUE(queue.Submit(job).ok());
  EXPECT_TRUE(absl::IsDataLoss(WaitFor(queue, 1)[4]));
}

TEST_F(TransferTest, AnyReaderErrorBecomesDataLossAndTheThreadLivesOn) {
  const std::vector<absl::Status> errors = {
      absl::InternalError("one"), absl::CancelledError("two"),
      absl::UnavailableError("three"), absl::DataLossError("four")};
  for (int32_t e = 0; e < 4; ++e) {
    const ExpertLocation& place = model_.catalog.layers[0].experts[e];
    reader_.SetStatus(place.file, place.offset + 4096, errors[e]);
  }
  TransferQueue queue(reader_, {.threads = 1, .chunk_bytes = 4096});
  for (int32_t e = 0; e < 5; ++e) {
    // Prefetches read single chunks, and so come to the bad one.
    ASSERT_TRUE(queue.Submit(Job(e, Cause::kPrefetch)).ok());
  }
  auto results = WaitFor(queue, 5);
  for (int32_t e = 0; e < 4; ++e) {
    EXPECT_TRUE(absl::IsDataLoss(results[e])) << results[e];
    EXPECT_EQ(results[e].message(), errors[e].message());
  }
  EXPECT_TRUE(results[4].ok()) << results[4];
}

TEST_F(TransferTest, DestructionDropsWhatIsQueued) {
  reader_.CloseGate();
  {
    TransferQueue queue(reader_, {.threads = 2, .chunk_bytes = 4096});
    for (int32_t e = 0; e < kExperts; ++e) {
      ASSERT_TRUE(queue.Submit(Job(e, Cause::kPrefetch)).ok());
    }
    reader_.AwaitAtGate(2);
    reader_.OpenGate();
  }
  EXPECT_LE(reader_.log().size(), 4u * kExperts);
}

TEST_F(TransferTest, DestructionOfAnIdleQueueReturns) {
  for (int i = 0; i < 100; ++i) {
    TransferQueue queue(reader_, {.threads = 1 + i % 2});
    if (i % 3 == 0) {
      ASSERT_TRUE(queue.Submit(Job(i % kExperts, Cause::kDemand)).ok());
    }
  }
}

TEST_F(TransferTest, WaitingForNothingIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        TransferQueue queue(reader_, one_thread_);
        std::vector<TransferResult> results;
        queue.Wait(results);
      },
      "nothing to wait for");
}

}  // namespace
}  // namespace bullpen
