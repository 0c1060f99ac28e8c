#include "tests/model/packed_weights.h"

#include <algorithm>
#include <map>

#include "base/file.h"
#include "base/strings.h"
#include "base/xxh3.h"
#include "engine/model/pack.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;

class SourceTensors {
 public:
  explicit SourceTensors(const std::vector<FakeTensor>& tensors) {
    for (const FakeTensor& tensor : tensors) by_name_[tensor.name] = tensor;
  }
  const FakeTensor& at(const std::string& name) {
    const auto found = by_name_.find(name);
    EXPECT_NE(found, by_name_.end()) << name;
    ++taken_;
    static const FakeTensor kNone;
    return found == by_name_.end() ? kNone : found->second;
  }
  // In the precision that the packed tensor has.
  std::string Bytes(const std::string& name, kernels::DType dtype) {
    const FakeTensor& tensor = at(name);
    return tensor.dtype == DTypeName(dtype) ? tensor.bytes
                                            : WidenedBytes(tensor);
  }
  size_t left() const { return by_name_.size() - taken_; }

 private:
  std::map<std::string, FakeTensor> by_name_;
  size_t taken_ = 0;
};

class Comparison {
 public:
  Comparison(SourceTensors& source, const ResidentWeights& weights)
      : source_(source), weights_(weights) {}

  void Matrix(const std::string& packed,
              const std::vector<std::string>& parts) {
    const kernels::PanelMatrix matrix = weights_.matrix(packed);
    std::string expected;
    for (const std::string& part : parts) {
      expected += source_.Bytes(part, matrix.dtype);
    }
    EXPECT_EQ(reinterpret_cast<uintptr_t>(matrix.data) % 64, 0u) << packed;
    EXPECT_TRUE(RowsOf(matrix) == expected) << packed;
  }

  void Vector(const std::string& packed, const std::string& name) {
    const FakeTensor& tensor = source_.at(name);
    const std::string expected = WidenedBytes(tensor);
    const std::string found(
        reinterpret_cast<const char*>(weights_.vector(packed)),
        expected.size());
    EXPECT_TRUE(found == expected) << packed;
  }

 private:
  SourceTensors& source_;
  const ResidentWeights& weights_;
};

}  // namespace

void WriteModel(const fs::path& dir, const std::vector<FakeTensor>& tensors,
                const nlohmann::json& config) {
  MakeEmpty(dir);
  WriteTensors(dir / "model.safetensors", tensors);
  WriteText(dir / "config.json", config.dump());
}

PackedModel PackAndOpen(const fs::path& source, const fs::path& target) {
  fs::remove_all(target);
  const absl::Status packed = Pack(source, target, {});
  EXPECT_TRUE(packed.ok()) << packed;
  absl::StatusOr<PackedModel> model = PackedModel::Open(target);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

std::string RowsOf(const kernels::PanelMatrix& matrix) {
  const size_t element = static_cast<size_t>(DTypeBytes(matrix.dtype));
  const char* data = static_cast<const char*>(matrix.data);
  const int64_t padded = int64_t{matrix.panels()} * 16;
  const int64_t band = matrix.dtype == kernels::DType::kF32 ? 32 : 64;
  std::string rows;
  for (int64_t r = 0; r < padded; ++r) {
    const int64_t first = r / band * band;
    for (int64_t c = 0; c < matrix.cols; ++c) {
      const int64_t at =
          first * matrix.cols + c * std::min(band, padded - first) + r - first;
      const std::string value(data + at * static_cast<int64_t>(element),
                              element);
      if (r < matrix.rows) {
        rows += value;
      } else {
        EXPECT_EQ(value, std::string(element, '\0'));
      }
    }
  }
  return rows;
}

ExpertRows3 ReadExpert(const PackedModel& model, int layer, int expert) {
  const ExpertCatalog::Layer& catalog = model.catalog().layers[layer];
  const ExpertLocation& location = catalog.experts[expert];
  const absl::StatusOr<File> file =
      File::OpenForRead(model.catalog().files[location.file]);
  EXPECT_TRUE(file.ok()) << file.status();
  std::vector<std::byte> blob(static_cast<size_t>(catalog.blob_bytes));
  const absl::Status read = file->ReadAt(location.offset, blob);
  EXPECT_TRUE(read.ok()) << read;
  EXPECT_EQ(location.offset % 4096, 0);
  EXPECT_EQ(catalog.blob_bytes % 4096, 0);
  EXPECT_EQ(XXH3_64bits(blob.data(), blob.size()), location.checksum);

  const kernels::ExpertShape& shape = model.expert_shape(layer);
  const auto part = [&](int64_t offset, int32_t rows, int32_t cols) {
    const bool down = offset == shape.down_offset();
    return RowsOf({.data = blob.data() + offset,
                   .dtype = down ? shape.down_dtype() : shape.dtype,
                   .rows = rows,
                   .cols = cols});
  };
  for (size_t i = static_cast<size_t>(shape.bytes()); i < blob.size(); ++i) {
    EXPECT_EQ(blob[i], std::byte{0}) << "padding at " << i;
  }
  return {.gate = part(0, shape.inner, shape.dim),
          .up = part(shape.gate_bytes(), shape.inner, shape.dim),
          .down = part(shape.down_offset(), shape.dim, shape.inner)};
}

void ExpectSameWeights(const std::vector<FakeTensor>& source,
                       const PackedModel& model) {
  const absl::StatusOr<ResidentWeights> weights = model.LoadResident();
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->bytes(), model.resident_bytes());
  const ModelConfig& config = model.config();
  SourceTensors tensors(source);
  Comparison compare(tensors, *weights);
  compare.Matrix("embed", {"model.embed_tokens.weight"});
  compare.Vector("final_norm", "model.norm.weight");
  EXPECT_EQ(weights->contains("head"), !config.tied_head);
  if (!config.tied_head) compare.Matrix("head", {"lm_head.weight"});

  for (int l = 0; l < static_cast<int>(config.layers.size()); ++l) {
    const std::string to = absl::StrCat("layers.", l, ".");
    const std::string from = absl::StrCat("model.layers.", l, ".");
    compare.Vector(to + "attn_norm", from + "input_layernorm.weight");
    compare.Vector(to + "ffn_norm", from + "post_attention_layernorm.weight");
    compare.Vector(to + "q_norm", from + "self_attn.q_norm.weight");
    compare.Vector(to + "k_norm", from + "self_attn.k_norm.weight");
    compare.Matrix(to + "qkv", {from + "self_attn.q_proj.weight",
                                from + "self_attn.k_proj.weight",
                                from + "self_attn.v_proj.weight"});
    compare.Matrix(to + "o", {from + "self_attn.o_proj.weight"});
    if (config.layers[l].moe) {
      compare.Matrix(to + "router", {from + "mlp.gate.weight"});
    }
    ASSERT_EQ(static_cast<int>(model.catalog().layers[l].experts.size()),
              config.experts_in(l));
    const kernels::DType dtype = model.expert_shape(l).dtype;
    for (int e = 0; e < config.experts_in(l); ++e) {
      const std::string expert =
          config.layers[l].moe ? absl::StrCat(from, "mlp.experts.", e, ".")
                               : from + "mlp.";
      const ExpertRows3 rows = ReadExpert(model, l, e);
      EXPECT_TRUE(rows.gate ==
                  tensors.Bytes(expert + "gate_proj.weight", dtype))
          << expert;
      EXPECT_TRUE(rows.up == tensors.Bytes(expert + "up_proj.weight", dtype))
          << expert;
      EXPECT_TRUE(rows.down ==
                  tensors.Bytes(expert + "down_proj.weight",
                                model.expert_shape(l).down_dtype()))
          << expert;
    }
  }
  EXPECT_EQ(tensors.left(), 0u) << "tensors that nothing was compared with";
}

}  // namespace bullpen
