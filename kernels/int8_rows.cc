#include "kernels/int8_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/quant_panels.h"

namespace bullpen::kernels {
namespace {

struct GroupDot {
  int32_t dot = 0;
  int32_t x_sum = 0;
};

GroupDot DotOf(const PanelFormat& format, const LaneGroup& group, int lane,
               const int8_t* codes) {
  GroupDot result;
  for (int c = 0; c < format.group_cols; ++c) {
    result.dot += GroupQuant(format, group, lane, c) * codes[c];
    result.x_sum += codes[c];
  }
  return result;
}

}  // namespace

void Int8Row(const PanelFormat& format, const float* x, int64_t cols,
             int8_t* codes, float* scales) {
  for (int64_t first = 0; first < cols; first += format.block_cols) {
    float largest = 0.0f;
    bool finite = true;
    for (int c = 0; c < format.block_cols; ++c) {
      largest = std::max(largest, std::fabs(x[c]));
      finite = finite && std::isfinite(x[c]);
    }
    const bool some = finite && largest >= kLeastLargest;
    *scales++ = some     ? largest / 127.0f
                : finite ? 0.0f
                         : std::numeric_limits<float>::quiet_NaN();
    const float inverse = some ? 127.0f / largest : 0.0f;
    for (int c = 0; c < format.block_cols; ++c) {
      *codes++ =
          some ? static_cast<int8_t>(std::nearbyintf(x[c] * inverse)) : 0;
    }
    x += format.block_cols;
  }
}

float PanelDotInt8(const PanelMatrix& w, int64_t row, const int8_t* codes,
                   const float* scales) {
  const PanelFormat& format = FormatOf(w.dtype);
  const std::byte* panel = PanelOf(w, row);
  const int lane = static_cast<int>(row % kPanelRows);
  const bool product = format.scale == ScaleCode::kProduct;
  float sum = 0.0f;
  for (int64_t block = 0; block < w.cols / format.block_cols; ++block) {
    const float x_scale = *scales++;
    int32_t dots = 0, x_sums = 0;
    LaneGroup group;
    for (int32_t g = 0; g < format.groups(); ++g) {
      group = LoadGroup(format, panel, lane, block * format.groups() + g);
      const GroupDot of_group = DotOf(format, group, lane, codes);
      codes += format.group_cols;
      if (product) {
        dots += group.factor * of_group.dot;
        x_sums += group.minimum_factor * of_group.x_sum;
        continue;
      }
      sum = std::fma(group.scale * x_scale, static_cast<float>(of_group.dot),
                     sum);
      if (format.minimum) {
        sum = std::fma(-(group.minimum * x_scale),
                       static_cast<float>(of_group.x_sum), sum);
      }
    }
    if (!product) continue;
    sum = std::fma(group.of_block * x_scale, static_cast<float>(dots), sum);
    if (format.minimum) {
      sum = std::fma(-(group.minimum_of_block * x_scale),
                     static_cast<float>(x_sums), sum);
    }
  }
  return sum;
}

OracleRow::OracleRow(DType dtype, const float* x, int64_t cols,
                     std::byte* codes)
    : x_(x) {
  if (codes == nullptr || IsPlain(dtype)) return;
  int8_t* integers = reinterpret_cast<int8_t*>(codes);
  float* scales = reinterpret_cast<float*>(codes + cols);
  Int8Row(FormatOf(dtype), x, cols, integers, scales);
  codes_ = integers;
  scales_ = scales;
}

float OracleRow::Dot(const PanelMatrix& w, int64_t row) const {
  return codes_ == nullptr ? PanelDot(w, row, x_)
                           : PanelDotInt8(w, row, codes_, scales_);
}

}  // namespace bullpen::kernels
