#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/experts/blob_reader.h"
#include "engine/experts/expert.h"

namespace bullpen {

// How often a read goes wrong, each in [0, 1], and how long it may take.
struct ReadFaults {
  double fail = 0;     // DataLoss, nothing is read
  double shorten = 0;  // DataLoss after a part was read
  double corrupt = 0;  // OK, with one byte flipped
  int32_t yields = 0;  // at most so many turns of the processor are given away
};

// Serves blobs from memory; delays, fails, shortens and corrupts by seed. Its
// gate holds reads back, so that a test decides what happens in which order.
class FakeBlobReader : public BlobReader {
 public:
  explicit FakeBlobReader(std::vector<std::vector<std::byte>> files);
  // The same over copies of real files.
  static std::vector<std::vector<std::byte>> Load(
      const std::vector<std::string>& paths);

  absl::Status Read(int32_t file, int64_t offset,
                    std::span<std::byte> out) override;

  // Any thread.
  void SetFaults(const ReadFaults& faults, uint64_t seed);
  // Reads at this place give `status` until told otherwise (OK).
  void SetStatus(int32_t file, int64_t offset, absl::Status status);
  void FlipByte(int32_t file, int64_t offset);

  void CloseGate();
  void OpenGate();
  // Waits until `reads` of them stand at the closed gate.
  void AwaitAtGate(int32_t reads);
  // Lets `reads` of them pass the closed gate, oldest first.
  void LetPass(int32_t reads);

  struct Place {
    int32_t file = 0;
    int64_t offset = 0;
    int64_t size = 0;
  };
  // Reads in the order in which they came to the gate.
  std::vector<Place> log() const;

 private:
  struct Fault {
    absl::Status status;
    size_t bytes = 0;
    bool flip = false;
    int32_t yields = 0;
  };
  void PassGate(const Place& place);
  Fault Draw(const Place& place);

  mutable absl::Mutex mutex_;
  absl::CondVar gate_;  // whenever its numbers change
  std::vector<std::vector<std::byte>> files_ ABSL_GUARDED_BY(mutex_);
  std::mt19937_64 random_ ABSL_GUARDED_BY(mutex_);
  ReadFaults faults_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<Place, absl::Status>> forced_ ABSL_GUARDED_BY(mutex_);
  bool open_ ABSL_GUARDED_BY(mutex_) = true;
  int64_t came_ ABSL_GUARDED_BY(mutex_) = 0;     // to the gate, ever
  int64_t allowed_ ABSL_GUARDED_BY(mutex_) = 0;  // to pass it, ever
  std::vector<Place> log_ ABSL_GUARDED_BY(mutex_);
};

// A random packed model in memory: `files` holds the blobs of `catalog`.
struct FakeModel {
  ExpertCatalog catalog;
  std::vector<std::vector<std::byte>> files;

  std::span<const std::byte> Blob(int32_t layer, int32_t expert) const;
};
struct FakeModelShape {
  int32_t layers = 2;
  int32_t experts = 8;
  int64_t blob_bytes = 4096;  // layer l has (1 + l % 3) times as many
  bool same_size = false;     // all layers have as many
};
FakeModel MakeFakeModel(const FakeModelShape& shape, uint64_t seed);

}  // namespace bullpen
