#include "engine/experts/trace_file.h"

#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "base/xxh3.h"
#include "engine/experts/limits.h"

namespace bullpen {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "BPTRACE1";
constexpr std::string_view kMagicWithTokens = "BPTRACE2";
constexpr int64_t kMaxExpertBytes = int64_t{1} << 40;
constexpr uint32_t kMaxNumber = 1 << 30;  // of a turn or step
constexpr size_t kBlockBytes = size_t{256} << 10;
constexpr int64_t kMaxFileBytes = int64_t{4} << 30;

template <typename Number>
void Put(std::string& out, Number value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

uint64_t Checksum(std::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

// Takes numbers off the front of bytes that may end too early.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}

  template <typename Number>
  bool Take(Number& value) {
    if (left() < sizeof(value)) return false;
    std::memcpy(&value, bytes_.data() + at_, sizeof(value));
    at_ += sizeof(value);
    return true;
  }
  bool Take(size_t count, std::string_view& out) {
    if (left() < count) return false;
    out = bytes_.substr(at_, count);
    at_ += count;
    return true;
  }
  size_t at() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }

 private:
  std::string_view bytes_;
  size_t at_ = 0;
};

absl::Status Wrong(size_t at, std::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("binary routing trace, byte ", at, ": ",
                   absl::string_view(what.data(), what.size())));
}

class TraceReader {
 public:
  explicit TraceReader(std::string_view bytes) : bytes_(bytes), in_(bytes) {}

  absl::StatusOr<RoutingTrace> Read() {
    ASSIGN_OR_RETURN(RoutingTrace trace, ReadHeader());
    while (in_.left() > 0) {
      const size_t start = in_.at();
      uint32_t size = 0;
      uint64_t checksum = 0;
      std::string_view block;
      if (!in_.Take(size) || !in_.Take(checksum) || !in_.Take(size, block)) {
        return Wrong(start, "the file ends in the middle of a block");
      }
      if (Checksum(block) != checksum) {
        return Wrong(start, "the checksum of the block does not match");
      }
      RETURN_IF_ERROR(ReadBlock(block, trace));
    }
    if (trace.choices().empty()) {
      return Wrong(bytes_.size(), "the trace has no records");
    }
    return trace;
  }

 private:
  absl::StatusOr<RoutingTrace> ReadHeader() {
    std::string_view magic;
    uint32_t layers = 0;
    uint32_t experts = 0;
    if (!in_.Take(kMagic.size(), magic) || !in_.Take(layers) ||
        !in_.Take(experts)) {
      return Wrong(in_.at(), "the header ends too early");
    }
    token_ids_ = magic == kMagicWithTokens;
    if (layers < 1 || layers > kMaxLayers || experts < 1 ||
        experts > kMaxExpertsPerLayer) {
      return Wrong(in_.at(), absl::StrCat(layers, " layers of ", experts,
                                          " experts; at most ", kMaxLayers,
                                          " of ", kMaxExpertsPerLayer));
    }
    if (TracePairs(layers, experts) > kMaxTracePairs) {
      return Wrong(in_.at(), absl::StrCat(layers, " layers of ", experts,
                                          " experts; layers * experts^2 is at "
                                          "most ",
                                          kMaxTracePairs));
    }
    std::vector<int64_t> expert_bytes(layers);
    for (int64_t& count : expert_bytes) {
      if (!in_.Take(count) || count < 0 || count > kMaxExpertBytes) {
        return Wrong(in_.at(), "the bytes of an expert are missing or wrong");
      }
    }
    const size_t end = in_.at();
    uint64_t checksum = 0;
    if (!in_.Take(checksum) || Checksum(bytes_.substr(0, end)) != checksum) {
      return Wrong(end, "the checksum of the header does not match");
    }
    return RoutingTrace(static_cast<int32_t>(experts), std::move(expert_bytes));
  }

  absl::Status ReadBlock(std::string_view block, RoutingTrace& trace) {
    ByteReader records(block);
    std::vector<int32_t> experts;
    std::vector<float> weights;
    while (records.left() > 0) {
      uint32_t turn = 0;
      uint32_t step = 0;
      uint16_t layer = 0;
      uint8_t phase = 0;
      uint8_t count = 0;
      uint32_t token = 0;
      const size_t at = in_.at() - records.left();
      bool whole = records.Take(turn) && records.Take(step) &&
                   records.Take(layer) && records.Take(phase) &&
                   records.Take(count);
      experts.resize(count);
      weights.resize(count);
      for (int32_t& expert : experts) {
        uint16_t id = 0;
        whole = whole && records.Take(id);
        expert = id;
      }
      for (float& weight : weights) whole = whole && records.Take(weight);
      if (token_ids_) whole = whole && records.Take(token);
      if (!whole) return Wrong(at, "a record ends too early");
      if (phase > 1 || turn > kMaxNumber || step > kMaxNumber ||
          token > kMaxNumber) {
        return Wrong(at,
                     "a record's phase, turn, step or token is out of range");
      }
      const absl::Status added =
          trace.Add({.turn = static_cast<int32_t>(turn),
                     .phase = phase == 0 ? Phase::kPrefill : Phase::kDecode,
                     .step = static_cast<int32_t>(step),
                     .layer = layer,
                     .token = token_ids_ ? static_cast<int32_t>(token) : -1},
                    experts, weights);
      if (!added.ok()) return Wrong(at, std::string(added.message()));
    }
    return absl::OkStatus();
  }

  std::string_view bytes_;
  ByteReader in_;
  bool token_ids_ = false;
};

absl::Status AppendTo(File& file, std::string_view bytes) {
  return file.Append(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

}  // namespace

absl::StatusOr<RoutingTrace> ParseTrace(std::string_view bytes) {
  if (bytes.starts_with(kMagic) || bytes.starts_with(kMagicWithTokens)) {
    return TraceReader(bytes).Read();
  }
  return RoutingTrace::ParseCsv(bytes);
}

absl::StatusOr<RoutingTrace> ReadTrace(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxFileBytes));
  absl::StatusOr<RoutingTrace> trace = ParseTrace(bytes);
  if (trace.ok()) return trace;
  return absl::Status(
      trace.status().code(),
      absl::StrCat(path.string(), ": ", trace.status().message()));
}

absl::StatusOr<TraceWriter> TraceWriter::Create(
    const std::filesystem::path& path, const Contents& contents) {
  const auto [experts, expert_bytes, token_ids] = contents;
  CHECK(experts >= 1 && experts <= kMaxExpertsPerLayer) << experts;
  CHECK(expert_bytes.size() <= kMaxLayers) << expert_bytes.size();
  std::string header(token_ids ? kMagicWithTokens : kMagic);
  Put(header, static_cast<uint32_t>(expert_bytes.size()));
  Put(header, static_cast<uint32_t>(experts));
  for (const int64_t count : expert_bytes) Put(header, count);
  Put(header, Checksum(header));
  ASSIGN_OR_RETURN(File file, File::Create(path));
  RETURN_IF_ERROR(AppendTo(file, header));
  return TraceWriter(std::move(file), token_ids);
}

void TraceWriter::Add(const RoutingTrace::Choice& choice,
                      std::span<const int32_t> experts,
                      std::span<const float> weights) {
  CHECK(experts.size() == weights.size() && experts.size() <= 255)
      << experts.size();
  if (!status_.ok()) return;
  Put(block_, static_cast<uint32_t>(choice.turn));
  Put(block_, static_cast<uint32_t>(choice.step));
  Put(block_, static_cast<uint16_t>(choice.layer));
  Put(block_, static_cast<uint8_t>(choice.phase == Phase::kDecode ? 1 : 0));
  Put(block_, static_cast<uint8_t>(experts.size()));
  for (const int32_t expert : experts) {
    Put(block_, static_cast<uint16_t>(expert));
  }
  for (const float weight : weights) Put(block_, weight);
  if (token_ids_) Put(block_, static_cast<uint32_t>(choice.token));
  if (block_.size() >= kBlockBytes) WriteBlock();
}

void TraceWriter::WriteBlock() {
  std::string frame;
  Put(frame, static_cast<uint32_t>(block_.size()));
  Put(frame, Checksum(block_));
  status_.Update(AppendTo(file_, frame + block_));
  block_.clear();
}

absl::Status TraceWriter::Close() {
  if (!block_.empty()) WriteBlock();
  return status_;
}

}  // namespace bullpen
