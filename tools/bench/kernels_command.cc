#include "tools/bench/kernels_command.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "base/worker_pool.h"
#include "nlohmann/json.hpp"
#include "tools/bench/kernel_subjects.h"
#include "tools/bench/machine.h"
#include "tools/bench/report.h"
#include "tools/bench/roofs.h"

namespace bullpen {
namespace {

using Json = nlohmann::ordered_json;
using kernels::Isa;

constexpr double kSliceSeconds = 0.002;
constexpr int kRoofSlices = 2;  // of each limit, after each slice
constexpr int kLeastSlices = 5;

// The instruction sets by name; "all" is what this CPU has but the oracle.
absl::StatusOr<std::vector<Isa>> ParseIsas(
    const std::vector<std::string>& names) {
  std::vector<Isa> isas;
  for (const std::string& name : names) {
    if (name == "all") {
      for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
        if (kernels::IsSupported(isa)) isas.push_back(isa);
      }
      continue;
    }
    ASSIGN_OR_RETURN(const Isa isa, kernels::ParseIsa(name));
    isas.push_back(isa);
  }
  return isas;
}

// One slice of calls, and the limits beside it.
struct Slice {
  double call_seconds = 0;
  double dram = 0;  // bytes per second
  double peak = 0;  // operations per second

  // Least time of a call by the limits, of the time that it took.
  double share(const KernelCost& cost) const {
    return std::max(cost.bytes / dram, cost.operations / peak) / call_seconds;
  }
};

// Measures subjects on this machine.
class Runner {
 public:
  Runner(DramRoof roof, double seconds)
      : roof_(std::move(roof)), seconds_(seconds) {}

  // The limits alone.
  Json Limits(const std::vector<int32_t>& thread_counts,
              const std::vector<Isa>& isas) {
    Json limits = Json::array();
    for (const int32_t threads : thread_counts) {
      WorkerPool& pool = Pool(threads);
      limits.push_back({{"threads", threads}});
      limits.back().update(MemoryLimits(roof_, pool));
      for (const Isa isa : isas) {
        for (const Peak peak :
             {Peak::kFmaF32, Peak::kMaddU8S8, Peak::kDotU8S8}) {
          if (!HasPeak(peak, isa)) continue;
          const std::string isa_name(kernels::CpuOps(isa).name);
          const double rate = BestPeak(peak, isa, pool);
          limits.back()[isa_name][PeakName(peak)] = rate;
          std::printf(", %s %s %.0f GOPS", isa_name.c_str(), PeakName(peak),
                      rate * 1e-9);
        }
      }
      std::printf("\n");
    }
    return limits;
  }

  absl::StatusOr<Json> Measure(KernelSubject& subject, Isa isa,
                               const KernelSetting& setting) {
    WorkerPool& pool = Pool(setting.threads);
    kernels::Stream stream{.pool = &pool};
    const kernels::Ops& ops = kernels::CpuOps(isa);
    ASSIGN_OR_RETURN(const KernelCost cost, subject.Prepare(setting));
    const Isa peak_isa = HasPeak(Peak::kFmaF32, isa) ? isa : Isa::kAvx2;
    const Peak peak = setting.int8 ? IntegerPeak(peak_isa) : Peak::kFmaF32;
    std::vector<Slice> slices;
    for (double spent = 0;
         spent < seconds_ || std::ssize(slices) < kLeastSlices;) {
      ASSIGN_OR_RETURN(Slice slice, Calls(subject, ops, stream, spent));
      for (int i = 0; i < kRoofSlices; ++i) {
        slice.dram = std::max(slice.dram, roof_.Slice(pool));
        slice.peak = std::max(slice.peak, PeakSlice(peak, peak_isa, pool));
      }
      slices.push_back(slice);
    }
    Json line = {{"op", subject.op()},
                 {"type", subject.type()},
                 {"shape", subject.shape()},
                 {"rows", setting.rows},
                 {"activations", setting.int8 ? "int8" : "f32"},
                 {"isa", std::string(ops.name)},
                 {"threads", setting.threads}};
    line.update(Summary(std::move(slices), cost));
    line["peak"] = PeakName(peak);
    return line;
  }

 private:
  static absl::StatusOr<Slice> Calls(KernelSubject& subject,
                                     const kernels::Ops& ops,
                                     kernels::Stream& stream, double& spent) {
    int calls = 0;
    double seconds = 0;
    while (seconds < kSliceSeconds) {
      absl::Status status;
      seconds += SecondsOf([&] { status = subject.Call(ops, stream); });
      RETURN_IF_ERROR(status);
      ++calls;
    }
    spent += seconds;
    return Slice{.call_seconds = seconds / calls};
  }

  // The best slice against the best limits; and the middle one of the shares
  // that slices have of the limits right after them.
  static Json Summary(std::vector<Slice> slices, const KernelCost& cost) {
    Slice best = *std::ranges::min_element(slices, {}, &Slice::call_seconds);
    best.dram = std::ranges::max_element(slices, {}, &Slice::dram)->dram;
    best.peak = std::ranges::max_element(slices, {}, &Slice::peak)->peak;
    const auto middle = slices.begin() + std::ssize(slices) / 2;
    std::ranges::nth_element(slices, middle, {},
                             [&](const Slice& s) { return s.share(cost); });
    return {{"microseconds", 1e6 * best.call_seconds},
            {"bytes_per_second", cost.bytes / best.call_seconds},
            {"share_of_dram", cost.bytes / best.call_seconds / best.dram},
            {"operations_per_second", cost.operations / best.call_seconds},
            {"share_of_peak", cost.operations / best.call_seconds / best.peak},
            {"share_of_limit", best.share(cost)},
            {"median_share_of_pairs", middle->share(cost)},
            {"slices", slices.size()}};
  }

  WorkerPool& Pool(int32_t threads) {
    std::unique_ptr<WorkerPool>& pool = pools_[threads];
    if (pool == nullptr) pool = std::make_unique<WorkerPool>(threads);
    return *pool;
  }

  DramRoof roof_;
  double seconds_;
  std::map<int32_t, std::unique_ptr<WorkerPool>> pools_;
};

void Print(const Json& line) {
  std::printf(
      "%-11s %-7s %-36s %4d %-5s %-7s %2d %10.1f %7.1f %6.3f %7.1f %6.3f "
      "%6.3f %6.3f\n",
      line["op"].get<std::string>().c_str(),
      line["type"].get<std::string>().c_str(),
      line["shape"].get<std::string>().c_str(), line["rows"].get<int>(),
      line["activations"].get<std::string>().c_str(),
      line["isa"].get<std::string>().c_str(), line["threads"].get<int>(),
      line["microseconds"].get<double>(),
      line["bytes_per_second"].get<double>() * 1e-9,
      line["share_of_dram"].get<double>(),
      line["operations_per_second"].get<double>() * 1e-9,
      line["share_of_peak"].get<double>(), line["share_of_limit"].get<double>(),
      line["median_share_of_pairs"].get<double>());
  std::fflush(stdout);
}

void PrintHeading() {
  std::printf(
      "%-11s %-7s %-36s %4s %-5s %-7s %2s %10s %7s %6s %7s %6s %6s %6s\n", "op",
      "type", "shape", "M", "x", "isa", "t", "us", "GB/s", "dram", "GOPS",
      "peak", "limit", "median");
}

}  // namespace

KernelsCommand::KernelsCommand(CLI::App& bench, Command& chosen) {
  CLI::App* kernels = bench.add_subcommand(
      "kernels",
      "Ops on cold weights, and their share of this machine's limits");
  kernels
      ->add_option("--filter", filters_,
                   "only what has one of these texts in op/type/shape, such as "
                   "matmul/Q4_K")
      ->delimiter(',');
  kernels
      ->add_option("--isa", isas_,
                   "instruction sets: all, oracle, avx2, avx512")
      ->delimiter(',')
      ->capture_default_str();
  kernels
      ->add_option("--activations", activations_,
                   "what quantised weights multiply: int8, f32")
      ->delimiter(',')
      ->check(CLI::IsMember({"int8", "f32"}))
      ->capture_default_str();
  kernels
      ->add_option("--rows", rows_,
                   "numbers of rows (M), instead of the usual ones")
      ->delimiter(',')
      ->check(CLI::Range(1, kMaxKernelRows));
  kernels->add_option("--threads", threads_, "numbers of threads")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  kernels->add_option("--seconds", seconds_, "of each line, at least")
      ->check(Between(0.001, 60))
      ->capture_default_str();
  kernels->add_option("--json", json_, "also write the result to this file");
  kernels->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

std::vector<KernelSetting> KernelsCommand::Settings(
    const KernelSubject& subject) const {
  std::vector<KernelSetting> settings;
  for (const int32_t rows : rows_.empty() ? subject.rows() : rows_) {
    if (rows > subject.max_rows()) continue;
    for (const std::string& activations : activations_) {
      const bool int8 = activations == "int8" && subject.has_int8();
      for (const int32_t threads : threads_) {
        settings.push_back({.rows = rows, .threads = threads, .int8 = int8});
      }
      if (!subject.has_int8()) break;
    }
  }
  return settings;
}

absl::Status KernelsCommand::Run() const {
  ASSIGN_OR_RETURN(const std::vector<Isa> isas, ParseIsas(isas_));
  std::vector<KernelSubjectMaker> makers = KernelSubjects();
  std::erase_if(makers, [this](const KernelSubjectMaker& maker) {
    return !filters_.empty() &&
           std::ranges::none_of(filters_, [&](const std::string& filter) {
             return maker.name.find(filter) != std::string::npos;
           });
  });
  if (makers.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--filter '", filters_.front(), "' is in no name"));
  }
  Json report = NewReport("kernels");
  std::printf("%s\n", MachineLine(report["machine"]).c_str());
  ASSIGN_OR_RETURN(DramRoof roof, DramRoof::Allocate());
  Runner runner(std::move(roof), seconds_);
  report["limits"] = runner.Limits(threads_, isas);
  report["lines"] = Json::array();
  PrintHeading();
  for (const KernelSubjectMaker& maker : makers) {
    ASSIGN_OR_RETURN(const std::unique_ptr<KernelSubject> subject,
                     maker.make());
    for (const KernelSetting& setting : Settings(*subject)) {
      for (const Isa isa : isas) {
        ASSIGN_OR_RETURN(Json line, runner.Measure(*subject, isa, setting));
        Print(line);
        report["lines"].push_back(std::move(line));
      }
    }
  }
  return WriteReport(report, json_);
}

}  // namespace bullpen
