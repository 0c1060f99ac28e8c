#include "engine/model/scaled_tensor.h"

#include <array>
#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/strings.h"
#include "engine/model/config.h"
#include "engine/model/config_fields.h"
#include "kernels/types.h"

namespace bullpen {
namespace {

constexpr char kFp8[] = "F8_E4M3";
constexpr char kExponents[] = "F8_E8M0";
constexpr char kMxfp4[] = "MXFP4";
constexpr int32_t kMxfp4Group = 32;

// Of scales that are floats; nothing for others.
std::optional<kernels::DType> FloatType(const TensorInfo& scales) {
  const std::optional<kernels::DType> dtype = kernels::FindDType(scales.dtype);
  return dtype.has_value() && kernels::IsPlain(*dtype) ? dtype : std::nullopt;
}

absl::Status DoNotFit(const std::string& name, const SourceTensor& weights,
                      const SourceTensor& scales) {
  return absl::DataLossError(
      absl::StrCat("tensor '", Printable(name), "' is ", weights.info.dtype,
                   " ", weights.info.ShapeText(), ", but its scales are ",
                   scales.info.dtype, " ", scales.info.ShapeText()));
}

// [..., G, 16] bytes with [..., G] scales are [..., 32 G] weights.
absl::Status JoinMxfp4(const std::string& name, SourceTensor& blocks,
                       const SourceTensor& scales) {
  std::vector<int64_t> groups = blocks.info.shape;
  const bool pairs = groups.size() >= 3 && groups.back() == kMxfp4Group / 2;
  if (pairs) groups.pop_back();
  if (!pairs || blocks.info.dtype != "U8" || scales.info.dtype != "U8" ||
      scales.info.shape != groups) {
    return DoNotFit(name, blocks, scales);
  }
  groups.back() *= kMxfp4Group;
  blocks.info.shape = std::move(groups);
  blocks.info.dtype = kMxfp4;
  blocks.info.bytes += scales.info.bytes;  // those of the joined blocks
  blocks.scales = TensorScales{.file = scales.file,
                               .info = scales.info,
                               .rows_each = 1,
                               .cols_each = kMxfp4Group};
  return absl::OkStatus();
}

struct Fp8Blocks {
  int32_t rows = 128;
  int32_t cols = 128;
  bool powers_of_two = false;
};

// What quantization_config says.
absl::StatusOr<Fp8Blocks> ReadFp8Blocks(const nlohmann::json& config) {
  Fp8Blocks blocks;
  ConfigFields fields(config, "config.json");
  if (!fields.Has("quantization_config")) return blocks;
  ConfigFields quantization = fields.Object("quantization_config");
  blocks.powers_of_two = quantization.String("scale_fmt", "") == "ue8m0";
  RETURN_IF_ERROR(quantization.status());
  if (!quantization.Has("weight_block_size")) return blocks;
  const std::vector<int32_t> sizes =
      quantization.Ints("weight_block_size", {.least = 1, .most = 1 << 20});
  RETURN_IF_ERROR(quantization.status());
  if (sizes.size() != 2) {
    quantization.Refuse("weight_block_size", "two numbers are");
    return quantization.status();
  }
  blocks.rows = sizes[0];
  blocks.cols = sizes[1];
  return blocks;
}

int64_t Parts(int64_t n, int64_t each) { return (n + each - 1) / each; }

absl::Status JoinFp8(const std::string& name, const Fp8Blocks& block,
                     SourceTensor& weights, const SourceTensor& scales) {
  std::vector<int64_t> wanted = weights.info.shape;
  const size_t dims = wanted.size();
  if (dims >= 2) {
    wanted[dims - 2] = Parts(wanted[dims - 2], block.rows);
    wanted[dims - 1] = Parts(wanted[dims - 1], block.cols);
  }
  const bool exponents = scales.info.dtype == kExponents;
  if (dims < 2 || scales.info.shape != wanted ||
      !(exponents || FloatType(scales.info).has_value())) {
    return DoNotFit(name, weights, scales);
  }
  weights.scales =
      TensorScales{.file = scales.file,
                   .info = scales.info,
                   .rows_each = block.rows,
                   .cols_each = block.cols,
                   .powers_of_two = exponents || block.powers_of_two};
  return absl::OkStatus();
}

// OCP 8-bit Floating Point Specification 1.0, E4M3: no infinities.
std::array<float, 256> MakeE4M3() {
  std::array<float, 256> values{};
  for (int code = 0; code < 256; ++code) {
    const int exponent = code >> 3 & 15;
    const int mantissa = code & 7;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                : std::ldexp(static_cast<float>(8 + mantissa),
                                             exponent - 10);
    if ((code & 127) == 127) value = NAN;
    values[code] = code < 128 ? value : -value;
  }
  return values;
}

// `dtype` is empty for bare exponents.
float ScaleAt(std::optional<kernels::DType> dtype, const std::byte* scales,
              int64_t index) {
  if (!dtype.has_value()) {
    const int exponent = std::to_integer<int>(scales[index]);
    return exponent == 255 ? NAN : std::ldexp(1.0f, exponent - 127);
  }
  if (*dtype == kernels::DType::kF32) {
    float scale;
    std::memcpy(&scale, scales + index * 4, sizeof(scale));
    return scale;
  }
  uint16_t bits;
  std::memcpy(&bits, scales + index * 2, sizeof(bits));
  return kernels::ToFloat(bits, *dtype);
}

}  // namespace

absl::Status JoinScales(CheckpointParts& parts) {
  constexpr std::string_view kBlocks = "_blocks";
  ASSIGN_OR_RETURN(const Fp8Blocks block,
                   ReadFp8Blocks(DecoderPart(parts.config)));
  std::vector<std::string> joined;
  for (auto& [name, tensor] : parts.tensors) {
    const bool mxfp4 = name.ends_with(kBlocks);
    if (!mxfp4 && tensor.info.dtype != kFp8) continue;
    const std::string scales_name =
        mxfp4 ? name.substr(0, name.size() - kBlocks.size()) + "_scales"
              : name + "_scale_inv";
    const auto scales = parts.tensors.find(scales_name);
    if (scales == parts.tensors.end()) continue;
    RETURN_IF_ERROR(mxfp4 ? JoinMxfp4(name, tensor, scales->second)
                          : JoinFp8(name, block, tensor, scales->second));
    joined.push_back(scales_name);
  }
  for (const std::string& name : joined) parts.tensors.erase(name);
  return absl::OkStatus();
}

bool IsFp8(const SourceTensor& tensor) {
  return tensor.scales.has_value() && tensor.info.dtype == kFp8;
}

int64_t WeightRowBytes(const SourceTensor& tensor) {
  const int64_t cols = tensor.info.shape.back();
  return IsFp8(tensor) ? cols : cols / 2;
}

int64_t ScaleRowBytes(const SourceTensor& tensor) {
  const TensorInfo& scales = tensor.scales->info;
  const std::optional<kernels::DType> dtype = FloatType(scales);
  const int64_t bytes = dtype.has_value() ? kernels::DTypeBytes(*dtype) : 1;
  return scales.shape.back() * bytes;
}

int64_t ScaleRow(const SourceTensor& tensor, int64_t row) {
  const std::vector<int64_t>& shape = tensor.info.shape;
  const int64_t rows = shape[shape.size() - 2];
  const int64_t scale_rows = Parts(rows, tensor.scales->rows_each);
  return row / rows * scale_rows + row % rows / tensor.scales->rows_each;
}

void JoinMxfp4Blocks(std::span<const std::byte> weights,
                     std::span<const std::byte> scales,
                     std::span<std::byte> out) {
  constexpr size_t kHalf = kMxfp4Group / 2;  // bytes of a group's weights
  for (size_t group = 0; group < scales.size(); ++group) {
    // Byte b has elements 2b and 2b + 1; in the block, b and b + 16.
    const auto element = [&](size_t i) {
      const std::byte both = weights[group * kHalf + i / 2];
      return i % 2 == 0 ? both & std::byte{15} : both >> 4;
    };
    std::byte* block = out.data() + group * (kHalf + 1);
    block[0] = scales[group];
    for (size_t b = 0; b < kHalf; ++b) {
      block[1 + b] = element(b) | element(b + kHalf) << 4;
    }
  }
}

void DequantiseFp8(const SourceTensor& tensor, const Fp8Rows& rows,
                   float* out) {
  static const std::array<float, 256> kE4M3 = MakeE4M3();
  const int64_t cols = tensor.info.shape.back();
  const int64_t first_scale = ScaleRow(tensor, rows.first);
  const std::optional<kernels::DType> dtype = FloatType(tensor.scales->info);
  for (int64_t r = 0; r < rows.count; ++r, out += cols) {
    const std::byte* weights = rows.weights.data() + r * cols;
    const int64_t scale_row = ScaleRow(tensor, rows.first + r) - first_scale;
    const std::byte* scales =
        rows.scales.data() + scale_row * ScaleRowBytes(tensor);
    for (int64_t c = 0; c < cols; ++c) {
      out[c] = kE4M3[std::to_integer<size_t>(weights[c])] *
               ScaleAt(dtype, scales, c / tensor.scales->cols_each);
    }
  }
}

}  // namespace bullpen
