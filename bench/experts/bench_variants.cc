// What a setting costs or brings while decoding: one model is loaded once for
// each variant, all in one process, and they take turns over the same tokens.
// Experts come from memory, at a rate that is given, so that the disk's moods
// do not show.
//   bench_variants guesses|gap PACKED TEXT SLOTS BYTES_PER_SECOND TOKENS

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/file.h"
#include "engine/model/model.h"
#include "engine/model/tokenizer.h"

namespace bullpen {
namespace {

constexpr int32_t kContext = 512;
constexpr int32_t kSlice = 16;   // tokens between two turns
constexpr size_t kRound = 1024;  // tokens of one load of the models
constexpr int64_t kMaxFile = int64_t{1} << 30;

class MemoryReader : public BlobReader {
 public:
  explicit MemoryReader(std::vector<std::string> files)
      : files_(std::move(files)) {}
  absl::Status Read(int32_t file, int64_t offset,
                    std::span<std::byte> out) override {
    std::memcpy(out.data(), files_[static_cast<size_t>(file)].data() + offset,
                out.size());
    return absl::OkStatus();
  }

 private:
  std::vector<std::string> files_;
};

struct Variant {
  const char* flags;
  void (*change)(ModelOptions&);
};

constexpr char kAllButTokens[] = "path,popularity,recent,request,router";

// What guesses bring, and those by token ids among them.
const std::vector<Variant> kGuesses = {
    {"--prefetch off", [](ModelOptions& o) { o.prefetch = "off"; }},
    {"--prefetch auto", [](ModelOptions&) {}},
    {"--prefetch auto, no ids",
     [](ModelOptions& o) { o.predictors = kAllButTokens; }},
    {"--prefetch on", [](ModelOptions& o) { o.prefetch = "on"; }},
    {"--prefetch on, no ids",
     [](ModelOptions& o) {
       o.prefetch = "on";
       o.predictors = kAllButTokens;
     }},
    {"--policy lru, off",
     [](ModelOptions& o) {
       o.prefetch = "off";
       o.policy = "lru";
     }},
};

// What the live gap to the optimum costs. Guesses depend on the clock, and so
// are left out; two that are the same show the noise.
const std::vector<Variant> kGap = {
    {"--oracle-window 0",
     [](ModelOptions& o) {
       o.prefetch = "off";
       o.oracle_window = 0;
     }},
    {"--oracle-window 0 again",
     [](ModelOptions& o) {
       o.prefetch = "off";
       o.oracle_window = 0;
     }},
    {"--oracle-window 256", [](ModelOptions& o) { o.prefetch = "off"; }},
};

double Seconds(clockid_t clock) {
  timespec time = {};
  CHECK(clock_gettime(clock, &time) == 0);
  return static_cast<double>(time.tv_sec) +
         1e-9 * static_cast<double>(time.tv_nsec);
}

// Of each slice.
struct Times {
  std::vector<double> walls = {};
  std::vector<double> cpus = {};
};

class Runner {
 public:
  Runner(const std::string& packed_dir, const Variant& variant, int32_t slots,
         int64_t rate)
      : name_(variant.flags) {
    auto packed = PackedModel::Open(packed_dir);
    CHECK(packed.ok()) << packed.status();
    std::vector<std::string> files;
    for (const std::string& path : packed->catalog().files) {
      auto bytes = ReadFile(path, kMaxFile);
      CHECK(bytes.ok()) << bytes.status();
      files.push_back(*std::move(bytes));
    }
    std::unique_ptr<BlobReader> reader =
        std::make_unique<MemoryReader>(std::move(files));
    ModelOptions options;
    options.threads = 1;
    options.context = kContext;
    options.max_sequences = 1;
    options.io_limit = rate;
    for (const ExpertCatalog::Layer& layer : packed->catalog().layers) {
      options.memory.expert_bytes += slots * layer.blob_bytes;
    }
    variant.change(options);
    auto model =
        Model::Load(*std::move(packed), options, metrics_, std::move(reader));
    CHECK(model.ok()) << model.status();
    model_ = *std::move(model);
    tables_ = FixedKvTables(model_->kv_groups(), model_->kv_limits(), 0);
  }

  // Decodes the next tokens, each after the one before in its context.
  void Decode(std::span<const int32_t> ids, Times& times) {
    const double wall = Seconds(CLOCK_MONOTONIC);
    const double cpu = Seconds(CLOCK_THREAD_CPUTIME_ID);
    const int32_t logit_row = 0;
    for (const int32_t& id : ids) {
      const SequenceRows sequence{.tables = tables_,
                                  .rows = 1,
                                  .first_position = position_,
                                  .request = request_};
      const auto result = model_->Forward({.ids = {&id, 1},
                                           .sequences = {&sequence, 1},
                                           .logit_rows = {&logit_row, 1}});
      CHECK(result.ok()) << result.status();
      position_ = (position_ + 1) % kContext;
      request_ += position_ == 0;
    }
    times.walls.push_back(Seconds(CLOCK_MONOTONIC) - wall);
    times.cpus.push_back(Seconds(CLOCK_THREAD_CPUTIME_ID) - cpu);
  }

  // Beside the times of the first variant; hits are those of this load.
  void Print(const Times& times, const Times& first) const {
    const CacheSnapshot cache = model_->cache_snapshot();
    const auto median = [](std::vector<double> values) {
      std::ranges::nth_element(values, values.begin() + std::ssize(values) / 2);
      return values[values.size() / 2];
    };
    const auto ratio = [&](const std::vector<double>& mine,
                           const std::vector<double>& theirs) {
      std::vector<double> ratios;
      for (size_t i = 0; i < mine.size(); ++i) {
        ratios.push_back(mine[i] / theirs[i]);
      }
      return median(ratios);
    };
    const double lookups = static_cast<double>(cache.decode.lookups());
    std::printf(
        "%-24s %9.1f tokens/s  time x %.4f  CPU us %7.2f x %.4f  hits %.4f "
        "late %.4f missed %.4f\n",
        name_, kSlice / median(times.walls), ratio(times.walls, first.walls),
        1e6 * median(times.cpus) / kSlice, ratio(times.cpus, first.cpus),
        static_cast<double>(cache.decode.hits()) / lookups,
        static_cast<double>(cache.decode.prefetched_late) / lookups,
        static_cast<double>(cache.decode.missed) / lookups);
  }
  void PrintPredictors() {
    for (const auto& [name, value] : PredictorGauges()) {
      std::printf("  %s %.3f\n", name.c_str(), value);
    }
  }

 private:
  std::vector<std::pair<std::string, double>> PredictorGauges() {
    std::vector<std::pair<std::string, double>> gauges;
    for (const auto& family : metrics_.registry().Collect()) {
      if (family.name.find("predictor") == std::string::npos) continue;
      for (const auto& metric : family.metric) {
        std::string name = family.name;
        for (const auto& label : metric.label) name += " " + label.value;
        gauges.emplace_back(name, metric.gauge.value);
      }
    }
    return gauges;
  }

  const char* name_;
  Metrics metrics_;
  std::unique_ptr<Model> model_;
  std::vector<KvTable> tables_;
  int32_t position_ = 0;
  int32_t request_ = 0;
};

int Run(const std::vector<std::string>& arguments) {
  const std::vector<Variant>& variants =
      arguments[0] == "gap" ? kGap : kGuesses;
  const std::string& packed = arguments[1];
  auto tokenizer = Tokenizer::FromDirectory(packed);
  CHECK(tokenizer.ok()) << tokenizer.status();
  auto text = ReadFile(arguments[2], kMaxFile);
  CHECK(text.ok()) << text.status();
  std::vector<int32_t> ids = (*tokenizer)->Encode(*text, false);
  ids.resize(std::min<size_t>(ids.size(), std::stoul(arguments[5])));
  std::vector<Times> times(variants.size());
  std::vector<std::unique_ptr<Runner>> runners;
  size_t turn = 0;
  for (size_t at = 0; at + kSlice <= ids.size(); at += kSlice, ++turn) {
    if (at % kRound == 0) {
      runners.clear();
      for (const Variant& variant : variants) {
        runners.push_back(std::make_unique<Runner>(packed, variant,
                                                   std::stoi(arguments[3]),
                                                   std::stoll(arguments[4])));
      }
    }
    for (size_t i = 0; i < runners.size(); ++i) {
      const size_t next = (turn + i) % runners.size();
      runners[next]->Decode(std::span(ids).subspan(at, kSlice), times[next]);
    }
  }
  for (size_t i = 0; i < runners.size(); ++i) {
    runners[i]->Print(times[i], times[0]);
  }
  if (variants.size() > 3) runners[3]->PrintPredictors();
  return 0;
}

}  // namespace
}  // namespace bullpen

int main(int count, char** arguments) {
  if (count != 7) {
    std::fputs(
        "usage: bench_variants guesses|gap PACKED TEXT SLOTS BYTES_PER_SECOND "
        "TOKENS\n",
        stderr);
    return 2;
  }
  return bullpen::Run({arguments + 1, arguments + count});
}
