#include "engine/model/noise_panels.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "kernels/block_quantise.h"
#include "kernels/quant_panels.h"

namespace bullpen {
namespace {

using Bytes = std::vector<std::byte>;

// F32 is written as it is; all else as the quantiser writes it.
absl::StatusOr<Bytes> BlocksOf(const kernels::BlockFormat& format,
                               const std::vector<float>& values) {
  const int64_t count = std::ssize(values);
  Bytes blocks(static_cast<size_t>(format.RowBytes(count)));
  if (format.exact == kernels::DType::kF32 && format.plain) {
    const auto bytes = std::as_bytes(std::span(values));
    blocks.assign(bytes.begin(), bytes.end());
  } else if (kernels::CanQuantise(format)) {
    kernels::Quantise(format, values.data(), count, blocks.data());
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("nothing quantises to ", std::string(format.name)));
  }
  return blocks;
}

}  // namespace

absl::StatusOr<Bytes> NoisePanels(std::mt19937& random, kernels::DType dtype,
                                  int64_t rows, int64_t cols) {
  const kernels::BlockFormat* const format =
      kernels::FindBlockFormat(kernels::DTypeName(dtype));
  if (format == nullptr || cols % format->elements != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows of ", cols, " elements cannot be written as ",
                     std::string(kernels::DTypeName(dtype))));
  }
  std::vector<float> values(static_cast<size_t>(rows * cols));
  std::normal_distribution<float> normal(
      0, 1 / std::sqrt(static_cast<float>(cols)));
  for (float& value : values) value = normal(random);
  ASSIGN_OR_RETURN(const Bytes source, BlocksOf(*format, values));
  Bytes panels(static_cast<size_t>(kernels::PanelBytes(dtype, rows, cols)));
  if (format->plain) {
    kernels::PackPanels(dtype, source.data(), rows, cols, cols, panels.data());
  } else {
    kernels::PackBlockRows(dtype,
                           {.source = *format,
                            .blocks = source.data(),
                            .rows = rows,
                            .cols = cols},
                           0, panels.data());
  }
  return panels;
}

}  // namespace bullpen
