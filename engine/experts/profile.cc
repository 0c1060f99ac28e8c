#include "engine/experts/profile.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status.h"
#include "base/xxh3.h"

namespace bullpen {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "BPPROF01";
constexpr int64_t kMaxBytes = int64_t{1} << 30;
constexpr uint32_t kMaxMatrices = 4096;

template <typename Number>
void Put(std::string& out, std::span<const Number> values) {
  out.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}
void Put(std::string& out, uint32_t value) {
  Put(out, std::span<const uint32_t>(&value, 1));
}

// Bytes that may end too early: then nothing more is read and ok() is false.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  template <typename Number>
  std::vector<Number> Take(size_t count) {
    const size_t size = count * sizeof(Number);
    ok_ = ok_ && count <= bytes_.size() && size <= bytes_.size();
    std::vector<Number> values(ok_ ? count : 0);
    if (!ok_ || count == 0) return values;
    std::memcpy(values.data(), bytes_.data(), size);
    bytes_.remove_prefix(size);
    return values;
  }
  uint32_t TakeOne() {
    const std::vector<uint32_t> one = Take<uint32_t>(1);
    return one.empty() ? 0 : one[0];
  }
  bool ok() const { return ok_; }
  bool done() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
  bool ok_ = true;
};

bool AreShares(std::span<const float> values) {
  for (const float value : values) {
    if (!(value >= 0 && value <= 1.001f)) return false;
  }
  return true;
}

absl::Status Damaged(std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(
      "routing profile: ", absl::string_view(what.data(), what.size())));
}

// All of a profile, before any of it is used.
struct Contents {
  std::vector<std::vector<float>> popularity;
  struct Table {
    int32_t layer = 0;
    int32_t horizon = 0;
    std::vector<uint16_t> counts;
    std::vector<uint16_t> totals;
  };
  std::vector<Table> tables;
  std::vector<std::vector<float>> matrices;
};

absl::Status CheckShape(Reader& in,
                        std::span<const RoutingShape::Layer> layers) {
  const uint32_t count = in.TakeOne();
  bool same = count == layers.size();
  for (size_t l = 0; same && l < layers.size(); ++l) {
    const int64_t experts = in.TakeOne();
    const int64_t top_k = in.TakeOne();
    same = experts == layers[l].experts && top_k == layers[l].top_k;
  }
  if (!in.ok()) return Damaged("it ends too early");
  if (same) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("routing profile: it is of a model with other layers or "
                   "experts (",
                   count, " layers; this one has ", layers.size(), ")"));
}

absl::StatusOr<Contents> ReadContents(
    Reader& in, std::span<const RoutingShape::Layer> layers,
    size_t matrix_size) {
  Contents contents;
  const uint32_t horizons = in.TakeOne();
  const uint32_t matrices = in.TakeOne();
  if (horizons > 16 || matrices > kMaxMatrices) {
    return Damaged(absl::StrCat(horizons, " horizons, ", matrices,
                                " matrices; at most 16 and ", kMaxMatrices));
  }
  for (const RoutingShape::Layer& layer : layers) {
    contents.popularity.push_back(
        in.Take<float>(static_cast<size_t>(layer.experts)));
    if (!AreShares(contents.popularity.back())) {
      return Damaged("a popularity is not in 0..1");
    }
  }
  for (size_t h = 1; h <= horizons; ++h) {
    for (size_t l = h; l < layers.size() && in.ok(); ++l) {
      const size_t from = static_cast<size_t>(layers[l - h].experts);
      const size_t to = static_cast<size_t>(layers[l].experts);
      Contents::Table table{.layer = static_cast<int32_t>(l),
                            .horizon = static_cast<int32_t>(h),
                            .counts = in.Take<uint16_t>(from * to),
                            .totals = in.Take<uint16_t>(from)};
      for (size_t i = 0; in.ok() && i < table.counts.size(); ++i) {
        if (table.counts[i] > table.totals[i / to]) {
          return Damaged("a count is above its total");
        }
      }
      contents.tables.push_back(std::move(table));
    }
  }
  for (uint32_t i = 0; i < matrices && in.ok(); ++i) {
    contents.matrices.push_back(in.Take<float>(matrix_size));
    if (!AreShares(contents.matrices.back())) {
      return Damaged("a share is not in 0..1");
    }
  }
  if (!in.ok() || !in.done()) {
    return Damaged("its length is not what it says");
  }
  return contents;
}

}  // namespace

std::string EncodeProfile(const RoutingPredictor& predictor,
                          const ActivationStore& store) {
  const std::vector<RoutingShape::Layer> layers = predictor.layers();
  std::string bytes(kMagic);
  Put(bytes, static_cast<uint32_t>(layers.size()));
  for (const RoutingShape::Layer& layer : layers) {
    Put(bytes, static_cast<uint32_t>(layer.experts));
    Put(bytes, static_cast<uint32_t>(layer.top_k));
  }
  const int32_t horizons = predictor.table_horizon();
  Put(bytes, static_cast<uint32_t>(horizons));
  Put(bytes, static_cast<uint32_t>(store.matrices().size()));
  const int32_t count = static_cast<int32_t>(layers.size());
  for (int32_t l = 0; l < count; ++l) Put(bytes, predictor.popularity(l));
  for (int32_t h = 1; h <= horizons; ++h) {
    for (int32_t l = h; l < count; ++l) {
      Put(bytes, predictor.table(l, h).counts());
      Put(bytes, predictor.table(l, h).row_totals());
    }
  }
  for (const std::vector<float>& matrix : store.matrices()) {
    Put(bytes, std::span<const float>(matrix));
  }
  const uint64_t checksum = XXH3_64bits(bytes.data(), bytes.size());
  Put(bytes, std::span<const uint64_t>(&checksum, 1));
  return bytes;
}

absl::Status DecodeProfile(std::string_view bytes, RoutingPredictor& predictor,
                           ActivationStore& store) {
  uint64_t checksum = 0;
  if (!bytes.starts_with(kMagic) ||
      bytes.size() < kMagic.size() + sizeof(checksum)) {
    return Damaged("it does not begin with BPPROF01");
  }
  const std::string_view body =
      bytes.substr(0, bytes.size() - sizeof(checksum));
  std::memcpy(&checksum, bytes.data() + body.size(), sizeof(checksum));
  if (XXH3_64bits(body.data(), body.size()) != checksum) {
    return Damaged("its checksum does not match");
  }
  const std::vector<RoutingShape::Layer> layers = predictor.layers();
  Reader in(body.substr(kMagic.size()));
  RETURN_IF_ERROR(CheckShape(in, layers));
  ASSIGN_OR_RETURN(Contents contents,
                   ReadContents(in, layers, store.matrix_size()));
  for (const Contents::Table& table : contents.tables) {
    // A predictor that forgets sooner starts without what it would not hold.
    if (table.horizon > predictor.table_horizon()) continue;
    predictor.table(table.layer, table.horizon)
        .Restore(table.counts, table.totals);
  }
  for (size_t l = 0; l < layers.size(); ++l) {
    predictor.RestorePopularity(static_cast<int32_t>(l),
                                contents.popularity[l]);
  }
  store.Restore(std::move(contents.matrices));
  return absl::OkStatus();
}

absl::Status CheckProfilePath(const std::filesystem::path& path,
                              const RoutingShape& shape) {
  const auto refuse = [&](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("profile ", path.string(), ": ", why));
  };
  std::error_code error;
  const std::filesystem::file_status status =
      std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    const std::filesystem::path parent = path.parent_path();
    const std::string directory = parent.empty() ? "." : parent.string();
    if (access(directory.c_str(), W_OK | X_OK) == 0) return absl::OkStatus();
    return refuse(absl::StrCat("cannot write to ", directory, ": ",
                               std::strerror(errno)));
  }
  if (status.type() != std::filesystem::file_type::regular) {
    return refuse("is not a regular file");
  }
  const absl::StatusOr<std::string> bytes = ReadFile(path, kMaxBytes);
  if (!bytes.ok()) return refuse(bytes.status().message());
  if (bytes->empty()) return absl::OkStatus();
  if (!bytes->starts_with(kMagic)) {
    return refuse("is not a routing profile, and would be overwritten");
  }
  Reader in(std::string_view(*bytes).substr(kMagic.size()));
  const absl::Status shaped = CheckShape(in, shape.layers);
  if (!absl::IsFailedPrecondition(shaped)) return absl::OkStatus();
  return refuse(shaped.message());
}

absl::Status SaveProfile(const std::filesystem::path& path,
                         const RoutingPredictor& predictor,
                         const ActivationStore& store) {
  // A link stays one; what it leads to is replaced.
  std::error_code error;
  std::filesystem::path target = std::filesystem::canonical(path, error);
  if (error) target = path;
  std::filesystem::path fresh = target;
  fresh += ".new";
  std::filesystem::remove(fresh, error);
  RETURN_IF_ERROR(WriteNewFile(fresh, EncodeProfile(predictor, store)));
  std::filesystem::rename(fresh, target, error);
  if (error) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot replace ", path.string(), ": ", error.message()));
  }
  const std::filesystem::path parent = target.parent_path();
  return SyncDirectory(parent.empty() ? "." : parent);
}

absl::Status LoadProfile(const std::filesystem::path& path,
                         RoutingPredictor& predictor, ActivationStore& store) {
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxBytes));
  const absl::Status status = DecodeProfile(bytes, predictor, store);
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(path.string(), ": ", status.message()));
}

absl::StatusOr<std::vector<std::vector<float>>> LoadExpertShares(
    const std::filesystem::path& path, const RoutingShape& shape) {
  RoutingPredictor predictor(
      shape, {.evidence = Bit(Evidence::kPopularity), .horizon = 1});
  ActivationStore store(shape, kMaxMatrices);
  RETURN_IF_ERROR(LoadProfile(path, predictor, store));
  const size_t width = store.matrix_size() / shape.layers.size();
  std::vector<std::vector<float>> shares;
  for (size_t l = 0; l < shape.layers.size(); ++l) {
    const std::span<const float> popularity =
        predictor.popularity(static_cast<int32_t>(l));
    std::vector<float>& layer =
        shares.emplace_back(popularity.begin(), popularity.end());
    if (store.matrices().empty()) continue;
    std::ranges::fill(layer, 0.0f);
    const float share = 1 / static_cast<float>(store.matrices().size());
    for (const std::vector<float>& request : store.matrices()) {
      for (size_t e = 0; e < layer.size(); ++e) {
        layer[e] += share * request[l * width + e];
      }
    }
  }
  return shares;
}

}  // namespace bullpen
