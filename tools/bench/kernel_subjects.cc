#include "tools/bench/kernel_subjects.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/huge_buffer.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/noise_panels.h"

namespace bullpen {
namespace {

using kernels::DType;

// More than any third-level cache's share of one machine.
constexpr int64_t kRingBytes = int64_t{512} << 20;
constexpr int64_t kAlignment = 64;

std::string Name(DType dtype) { return std::string(kernels::DTypeName(dtype)); }

// Copies of the same bytes, handed out in turn.
class Ring {
 public:
  static absl::StatusOr<Ring> Of(std::span<const std::byte> item) {
    const int64_t bytes = std::ssize(item);
    const int64_t stride = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    const int64_t copies = std::max<int64_t>(2, kRingBytes / stride);
    ASSIGN_OR_RETURN(HugeBuffer buffer, HugeBuffer::Allocate(copies * stride));
    for (int64_t i = 0; i < copies; ++i) {
      std::memcpy(buffer.data() + i * stride, item.data(), item.size());
    }
    return Ring(std::move(buffer), stride, copies);
  }

  std::byte* Next() { return buffer_.data() + next_++ % copies_ * stride_; }

 private:
  Ring(HugeBuffer buffer, int64_t stride, int64_t copies)
      : buffer_(std::move(buffer)), stride_(stride), copies_(copies) {}
  HugeBuffer buffer_;
  int64_t stride_;
  int64_t copies_;
  int64_t next_ = 0;
};

std::vector<float> Values(int64_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// Scratch of the given size where it is wanted, else nothing.
absl::StatusOr<HugeBuffer> Codes(bool wanted, int64_t bytes) {
  if (!wanted) return HugeBuffer();
  return HugeBuffer::Allocate(bytes);
}

class NamedSubject : public KernelSubject {
 public:
  NamedSubject(std::string op, kernels::KvType type, std::string shape)
      : op_(std::move(op)),
        type_(kernels::KvTypeName(type)),
        shape_(std::move(shape)),
        block_type_(false) {}
  NamedSubject(std::string op, DType dtype, std::string shape)
      : op_(std::move(op)),
        type_(Name(dtype)),
        shape_(std::move(shape)),
        block_type_(!kernels::FormatOf(dtype).plain()) {}
  const std::string& op() const override { return op_; }
  const std::string& type() const override { return type_; }
  const std::string& shape() const override { return shape_; }
  bool has_int8() const override { return block_type_; }

 private:
  std::string op_;
  std::string type_;
  std::string shape_;
  bool block_type_;
};

class MatMulSubject : public NamedSubject {
 public:
  MatMulSubject(DType dtype, int32_t rows, int32_t cols, Ring ring)
      : NamedSubject("matmul", dtype, absl::StrCat(rows, "x", cols)),
        ring_(std::move(ring)) {
    args_.w = {.dtype = dtype, .rows = rows, .cols = cols};
  }

  std::vector<int32_t> rows() const override {
    return {1, 2, 4, 8, 16, 64, 256, 512};
  }
  int32_t max_rows() const override { return kMaxKernelRows; }

  absl::StatusOr<KernelCost> Prepare(const KernelSetting& setting) override {
    const int32_t rows = setting.rows;
    ASSIGN_OR_RETURN(codes_, Codes(setting.int8,
                                   rows * kernels::Int8RowBytes(args_.w.cols)));
    args_.x_codes = codes_.data();
    x_ = Values(int64_t{rows} * args_.w.cols);
    y_.resize(static_cast<size_t>(rows) * args_.w.rows);
    args_.x = x_.data();
    args_.x_stride = args_.w.cols;
    args_.y = y_.data();
    args_.y_stride = args_.w.rows;
    args_.tokens = rows;
    return KernelCost{.bytes = static_cast<double>(kernels::PanelBytes(
                          args_.w.dtype, args_.w.rows, args_.w.cols)),
                      .operations = 2.0 * rows * args_.w.rows * args_.w.cols};
  }

  absl::Status Call(const kernels::Ops& ops, kernels::Stream& stream) override {
    args_.w.data = ring_.Next();
    return ops.matmul(args_, stream);
  }

 private:
  Ring ring_;
  kernels::MatMulArgs args_;
  HugeBuffer codes_;
  std::vector<float> x_;
  std::vector<float> y_;
};

class ExpertsSubject : public NamedSubject {
 public:
  ExpertsSubject(const kernels::ExpertShape& shape, Ring ring)
      : NamedSubject("grouped_ffn", shape.dtype,
                     absl::StrCat(shape.dim, "x", shape.inner)),
        ring_(std::move(ring)) {
    args_.shape = shape;
  }

  std::vector<int32_t> rows() const override {
    return {1, 2, 4, 8, 16, 64, 256, 512};
  }
  int32_t max_rows() const override { return kMaxKernelRows; }

  // Each expert's rows follow those of the one before.
  absl::StatusOr<KernelCost> Prepare(const KernelSetting& setting) override {
    constexpr int32_t kExperts = 8;
    constexpr int32_t kFewRows = 16;
    const int32_t rows = setting.rows;
    const int32_t experts = rows <= kFewRows ? kExperts : 1;
    const kernels::ExpertShape& shape = args_.shape;
    const size_t entries = static_cast<size_t>(rows) * experts;
    ASSIGN_OR_RETURN(codes_, Codes(setting.int8, static_cast<int64_t>(entries) *
                                                     shape.code_row_bytes()));
    args_.codes = codes_.data();
    groups_.clear();
    for (int32_t g = 0; g < experts; ++g) {
      groups_.push_back(
          {.blob = nullptr, .begin = g * rows, .end = (g + 1) * rows});
    }
    x_ = Values(static_cast<int64_t>(entries) * shape.dim);
    y_.resize(entries * shape.dim);
    scratch_.resize(entries * 2 * shape.inner);
    index_.resize(entries);
    std::iota(index_.begin(), index_.end(), 0);
    args_.x = x_.data();
    args_.x_stride = shape.dim;
    args_.groups = groups_.data();
    args_.group_count = experts;
    args_.x_row = index_.data();
    args_.slot = index_.data();
    args_.y = y_.data();
    args_.scratch = scratch_.data();
    return KernelCost{.bytes = static_cast<double>(experts * shape.bytes()),
                      .operations = 6.0 * static_cast<double>(entries) *
                                    shape.dim * shape.inner};
  }

  absl::Status Call(const kernels::Ops& ops, kernels::Stream& stream) override {
    for (kernels::ExpertRows& group : groups_) group.blob = ring_.Next();
    return ops.grouped_ffn(args_, stream);
  }

 private:
  Ring ring_;
  kernels::GroupedFfnArgs args_;
  HugeBuffer codes_;
  std::vector<kernels::ExpertRows> groups_;
  std::vector<float> x_;
  std::vector<float> y_;
  std::vector<float> scratch_;
  std::vector<int32_t> index_;
};

std::string ShapeText(const AttentionShape& shape) {
  return absl::StrCat(
      "context:", shape.context, ",heads:", shape.heads, "/", shape.kv_heads,
      ",dim:", shape.k_dim,
      shape.v_dim == shape.k_dim ? "" : absl::StrCat("+", shape.v_dim));
}

// Without memory. A key that is longer than a value holds it.
kernels::KvLayer LayerOf(const AttentionShape& shape) {
  return {.type = shape.kv_type,
          .blocks = shape.context / kernels::kKvBlockTokens,
          .kv_heads = shape.kv_heads,
          .k_dim = shape.k_dim,
          .v_dim = shape.v_dim,
          .value_in_key = shape.k_dim > shape.v_dim};
}

class AttentionSubject : public NamedSubject {
 public:
  AttentionSubject(const AttentionShape& shape, Ring ring)
      : NamedSubject("attention", shape.kv_type, ShapeText(shape)),
        shape_(shape),
        ring_(std::move(ring)),
        blocks_(static_cast<size_t>(shape.context / kernels::kKvBlockTokens)) {
    std::iota(blocks_.begin(), blocks_.end(), 0);
    args_.layer = LayerOf(shape);
    args_.sequences = &sequence_;
    args_.sequence_count = 1;
    args_.heads = shape.heads;
    args_.scale = 0.125f;
  }

  std::vector<int32_t> rows() const override {
    std::vector<int32_t> rows = {1, 64, 512};
    std::erase_if(rows, [this](int32_t r) { return r > shape_.context; });
    return rows;
  }
  int32_t max_rows() const override {
    return std::min(shape_.context, kMaxKernelRows);
  }

  absl::StatusOr<KernelCost> Prepare(const KernelSetting& setting) override {
    const int32_t rows = setting.rows;
    sequence_ = {.blocks = blocks_.data(),
                 .rows = rows,
                 .first_position = shape_.context - rows};
    q_ = Values(int64_t{rows} * shape_.heads * shape_.k_dim);
    out_.resize(static_cast<size_t>(rows) * shape_.heads * shape_.v_dim);
    args_.q = q_.data();
    args_.q_stride = int64_t{shape_.heads} * shape_.k_dim;
    args_.out = out_.data();
    args_.out_stride = int64_t{shape_.heads} * shape_.v_dim;
    args_.scratch_stride = kernels::AttentionScratch(shape_.v_dim);
    scratch_.resize(
        static_cast<size_t>(args_.scratch_stride * setting.threads));
    args_.scratch = scratch_.data();
    args_.partials_room =
        kernels::AttentionPartials(shape_.context, shape_.heads, shape_.v_dim);
    partials_.resize(static_cast<size_t>(args_.partials_room));
    args_.partials = partials_.data();
    const double keys = rows * (shape_.context - (rows - 1) / 2.0);
    return KernelCost{.bytes = static_cast<double>(std::ssize(blocks_) *
                                                   args_.layer.block_bytes()),
                      .operations = 2.0 * keys * shape_.heads *
                                    (shape_.k_dim + shape_.v_dim)};
  }

  absl::Status Call(const kernels::Ops& ops, kernels::Stream& stream) override {
    args_.layer.base = ring_.Next();
    return ops.attention(args_, stream);
  }

 private:
  AttentionShape shape_;
  Ring ring_;
  std::vector<int32_t> blocks_;
  kernels::KvSequence sequence_;
  kernels::AttentionArgs args_;
  std::vector<float> q_;
  std::vector<float> out_;
  std::vector<float> scratch_;
  std::vector<float> partials_;
};

constexpr DType kWeightTypes[] = {
    DType::kBF16, DType::kF16,  DType::kF32,  DType::kQ8_0,   DType::kQ4_0,
    DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kMXFP4};

}  // namespace

absl::StatusOr<std::unique_ptr<KernelSubject>> NewMatMulSubject(DType dtype,
                                                                int32_t rows,
                                                                int32_t cols) {
  std::mt19937 random(1);
  ASSIGN_OR_RETURN(const std::vector<std::byte> panels,
                   NoisePanels(random, dtype, rows, cols));
  ASSIGN_OR_RETURN(Ring ring, Ring::Of(panels));
  return std::make_unique<MatMulSubject>(dtype, rows, cols, std::move(ring));
}

absl::StatusOr<std::unique_ptr<KernelSubject>> NewExpertsSubject(
    DType dtype, int32_t dim, int32_t inner) {
  const kernels::ExpertShape shape{.dtype = dtype, .dim = dim, .inner = inner};
  std::vector<std::byte> blob(static_cast<size_t>(shape.bytes()));
  std::mt19937 random(1);
  ASSIGN_OR_RETURN(const std::vector<std::byte> gate,
                   NoisePanels(random, dtype, inner, dim));
  ASSIGN_OR_RETURN(const std::vector<std::byte> down,
                   NoisePanels(random, dtype, dim, inner));
  std::ranges::copy(gate, blob.begin());
  std::ranges::copy(gate, blob.begin() + shape.gate_bytes());
  std::ranges::copy(down, blob.begin() + shape.down_offset());
  ASSIGN_OR_RETURN(Ring ring, Ring::Of(blob));
  return std::make_unique<ExpertsSubject>(shape, std::move(ring));
}

absl::StatusOr<std::unique_ptr<KernelSubject>> NewAttentionSubject(
    const AttentionShape& shape) {
  kernels::KvLayer layer = LayerOf(shape);
  std::vector<std::byte> cache(
      static_cast<size_t>(layer.blocks * layer.block_bytes()));
  layer.base = cache.data();
  std::vector<int32_t> blocks(static_cast<size_t>(layer.blocks));
  std::iota(blocks.begin(), blocks.end(), 0);
  const kernels::KvSequence sequence{.blocks = blocks.data(),
                                     .rows = shape.context};
  const int64_t k_row = int64_t{shape.kv_heads} * shape.k_dim;
  const int64_t v_row = int64_t{shape.kv_heads} * shape.v_dim;
  const std::vector<float> k = Values(shape.context * k_row);
  const std::vector<float> v = Values(shape.context * v_row);
  kernels::Stream stream;
  RETURN_IF_ERROR(kernels::CpuOps(kernels::Isa::kOracle)
                      .kv_write({.k = k.data(),
                                 .k_stride = k_row,
                                 .v = v.data(),
                                 .v_stride = v_row,
                                 .layer = layer,
                                 .sequences = &sequence,
                                 .sequence_count = 1},
                                stream));
  ASSIGN_OR_RETURN(Ring ring, Ring::Of(cache));
  return std::make_unique<AttentionSubject>(shape, std::move(ring));
}

std::vector<KernelSubjectMaker> KernelSubjects() {
  // An expert matrix of OLMoE, an expert of Qwen3-30B-A3B.
  constexpr int32_t kRows = 1024;
  constexpr int32_t kCols = 2048;
  constexpr int32_t kInner = 768;
  std::vector<KernelSubjectMaker> makers;
  for (const DType dtype : kWeightTypes) {
    makers.push_back(
        {absl::StrCat("matmul/", Name(dtype), "/", kRows, "x", kCols),
         [=] { return NewMatMulSubject(dtype, kRows, kCols); }});
  }
  for (const DType dtype : kWeightTypes) {
    makers.push_back(
        {absl::StrCat("grouped_ffn/", Name(dtype), "/", kCols, "x", kInner),
         [=] { return NewExpertsSubject(dtype, kCols, kInner); }});
  }
  for (const kernels::KvType kv_type :
       {kernels::KvType::kF32, kernels::KvType::kF16, kernels::KvType::kInt8}) {
    // Of Qwen3-30B-A3B, of OLMoE, and of DeepSeek-V2-Lite, whose one head of
    // keys and values is the latent.
    for (const AttentionShape& heads :
         {AttentionShape{kv_type, 512, 32, 4, 128, 128},
          AttentionShape{kv_type, 4096, 32, 4, 128, 128},
          AttentionShape{kv_type, 4096, 16, 16, 128, 128},
          AttentionShape{kv_type, 4096, 16, 1, 576, 512}}) {
      makers.push_back(
          {absl::StrCat("attention/", Absl(kernels::KvTypeName(kv_type)), "/",
                        ShapeText(heads)),
           [=] { return NewAttentionSubject(heads); }});
    }
  }
  return makers;
}

}  // namespace bullpen
