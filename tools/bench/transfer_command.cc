#include "tools/bench/transfer_command.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "base/huge_buffer.h"
#include "base/status.h"
#include "engine/experts/transfer.h"
#include "engine/model/packed_model.h"
#include "tools/bench/machine.h"
#include "tools/bench/report.h"
#include "tools/bench/roofs.h"
#include "tools/load_model.h"

namespace bullpen {
namespace {

constexpr int64_t kSliceBytes = int64_t{128} << 20;

// User and system time of all threads.
double CpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) +
           static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Experts of one layer, drawn anew for each slice, into slots of their own.
class Subject {
 public:
  Subject(const ExpertCatalog::Layer& layer, BlobReader& reader,
          HugeBuffer arena, int32_t threads)
      : layer_(layer),
        reader_(reader),
        arena_(std::move(arena)),
        threads_(threads),
        transfers_(reader, {.threads = threads}) {}

  static int64_t ArenaBytes(const ExpertCatalog::Layer& layer) {
    return std::max<int64_t>(kSliceBytes / layer.blob_bytes, 1) *
           layer.blob_bytes;
  }
  int64_t bytes() const { return arena_.size(); }

  absl::Status ThroughTheQueue(bool verify) {
    Draw();
    std::vector<TransferResult> results;
    int64_t next = 0;
    for (int64_t ended = 0; ended < slots(); ended += std::ssize(results)) {
      while (next < slots() && next - ended < 2 * threads_) {
        RETURN_IF_ERROR(transfers_.Submit({.ticket = uint64_t(next),
                                           .source = *drawn_[next],
                                           .target = Slot(next),
                                           .bytes = layer_.blob_bytes,
                                           .verify = verify}));
        ++next;
      }
      results.clear();
      transfers_.Wait(results);
      for (const TransferResult& result : results) {
        RETURN_IF_ERROR(result.status);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Plain() {
    Draw();
    std::vector<absl::Status> statuses(static_cast<size_t>(threads_));
    {
      std::vector<std::jthread> readers;
      for (int32_t t = 0; t < threads_; ++t) {
        readers.emplace_back([this, t, &statuses] {
          for (int64_t i = t; i < slots(); i += threads_) {
            statuses[t].Update(
                reader_.Read(drawn_[i]->file, drawn_[i]->offset,
                             {Slot(i), size_t(layer_.blob_bytes)}));
          }
        });
      }
    }
    absl::Status all;
    for (const absl::Status& status : statuses) all.Update(status);
    return all;
  }

 private:
  int64_t slots() const { return arena_.size() / layer_.blob_bytes; }
  std::byte* Slot(int64_t i) { return arena_.data() + i * layer_.blob_bytes; }
  void Draw() {
    drawn_.resize(static_cast<size_t>(slots()));
    for (const ExpertLocation*& expert : drawn_) {
      expert = &layer_.experts[random_() % layer_.experts.size()];
    }
  }

  const ExpertCatalog::Layer& layer_;
  BlobReader& reader_;
  HugeBuffer arena_;
  int32_t threads_;
  TransferQueue transfers_;
  std::mt19937 random_{1};
  std::vector<const ExpertLocation*> drawn_;
};

struct Moved {
  double best = 0;  // bytes per second
  double bytes = 0;
  double seconds = 0;
  double cpu_seconds = 0;

  template <typename Slice>
  absl::Status Add(int64_t slice_bytes, Slice slice) {
    const double cpu = CpuSeconds();
    absl::Status status;
    const double took = SecondsOf([&] { status = slice(); });
    const double moved = static_cast<double>(slice_bytes);
    cpu_seconds += CpuSeconds() - cpu;
    seconds += took;
    bytes += moved;
    best = std::max(best, moved / took);
    return status;
  }
  nlohmann::ordered_json Json() const {
    return {{"best_bytes_per_second", best},
            {"mean_bytes_per_second", bytes / seconds},
            {"cpu_seconds_per_gb", cpu_seconds / bytes * 1e9}};
  }
  void Print(const char* name) const {
    std::printf("%-26s best %6.3f GB/s, mean %6.3f GB/s, CPU %.4f s/GB\n", name,
                best * 1e-9, bytes / seconds * 1e-9, cpu_seconds / bytes * 1e9);
  }
};

}  // namespace

TransferCommand::TransferCommand(CLI::App& bench,
                                 const Environment& environment,
                                 Command& chosen)
    : cache_dir_(environment.cache_dir) {
  CLI::App* transfer = bench.add_subcommand(
      "transfer", "Experts from the disk, and the share of plain reads");
  transfer->add_option("MODEL", model_, "packed on first use")->required();
  AddFlag(*transfer, "cache-dir", cache_dir_,
          "where packed copies of models are kept");
  transfer->add_option("--transfer-threads", threads_, "that read")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  transfer->add_option("--seconds", seconds_, "of reading, at least")
      ->check(Between(0.05, 600))
      ->capture_default_str();
  transfer->add_option("--json", json_, "also write the result to this file");
  transfer->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::Status TransferCommand::Run() const {
  nlohmann::ordered_json report = NewReport("transfer");
  report["model"] = model_.string();
  std::printf("%s\n", MachineLine(report["machine"]).c_str());
  ASSIGN_OR_RETURN(const std::filesystem::path dir,
                   FindPacked(model_, cache_dir_));
  ASSIGN_OR_RETURN(const PackedModel packed, PackedModel::Open(dir));
  const ExpertCatalog::Layer& layer = *std::ranges::max_element(
      packed.catalog().layers, {}, [](const ExpertCatalog::Layer& l) {
        return l.blob_bytes * static_cast<int64_t>(l.experts.size());
      });
  ASSIGN_OR_RETURN(const std::unique_ptr<BlobReader> reader,
                   OpenBlobFiles(packed.catalog().files));
  ASSIGN_OR_RETURN(HugeBuffer arena,
                   HugeBuffer::Allocate(Subject::ArenaBytes(layer)));
  Subject subject(layer, *reader, std::move(arena), threads_);
  Moved queue;
  Moved unverified;
  Moved plain;
  while (queue.seconds + unverified.seconds + plain.seconds < seconds_) {
    RETURN_IF_ERROR(
        plain.Add(subject.bytes(), [&] { return subject.Plain(); }));
    RETURN_IF_ERROR(queue.Add(subject.bytes(), [&] {
      return subject.ThroughTheQueue(/*verify=*/true);
    }));
    RETURN_IF_ERROR(unverified.Add(subject.bytes(), [&] {
      return subject.ThroughTheQueue(/*verify=*/false);
    }));
  }
  std::printf("experts of %.2f MB, %d threads\n",
              static_cast<double>(layer.blob_bytes) * 1e-6, threads_);
  plain.Print("plain reads");
  queue.Print("transfer queue");
  unverified.Print("without their checksums");
  std::printf("share: %.3f of the best, %.3f of the mean\n",
              queue.best / plain.best,
              (queue.bytes / queue.seconds) / (plain.bytes / plain.seconds));
  report.update({{"expert_bytes", layer.blob_bytes},
                 {"threads", threads_},
                 {"plain", plain.Json()},
                 {"queue", queue.Json()},
                 {"queue_unverified", unverified.Json()}});
  return WriteReport(report, json_);
}

}  // namespace bullpen
