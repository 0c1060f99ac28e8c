#include "kernels/quant_panels.h"

#include <array>
#include <cmath>
#include <cstring>
#include <iterator>

#include "base/check.h"
#include "kernels/element.h"
#include "kernels/split_codes.h"

namespace bullpen::kernels {
namespace {

float LoadHalf(const std::byte* base, int index, DType type) {
  uint16_t bits;
  std::memcpy(&bits, base + 2 * index, sizeof(bits));
  return ToFloat(bits, type);
}

void StoreHalf(std::byte* base, int index, float value, DType type) {
  const uint16_t bits = FromFloat(value, type);
  std::memcpy(base + 2 * index, &bits, sizeof(bits));
}

// One of the group's scales, or of its minimums.
void StoreScale(ScaleCode code, std::byte* base, int lane, float value,
                int8_t factor) {
  switch (code) {
    case ScaleCode::kNone:
      break;
    case ScaleCode::kF16:
      StoreHalf(base, lane, value, DType::kF16);
      break;
    case ScaleCode::kBF16:
      StoreHalf(base, lane, value, DType::kBF16);
      break;
    case ScaleCode::kF32:
      std::memcpy(base + 4 * lane, &value, sizeof(value));
      break;
    case ScaleCode::kProduct:
      base[lane] = static_cast<std::byte>(factor);
      break;
  }
}

// One of the group's scales, or of its minimums, of a type whose groups have
// their own.
float LoadScale(ScaleCode code, const std::byte* base, int lane) {
  if (code == ScaleCode::kF16) return LoadHalf(base, lane, DType::kF16);
  if (code == ScaleCode::kBF16) return LoadHalf(base, lane, DType::kBF16);
  float value;
  std::memcpy(&value, base + 4 * lane, sizeof(value));
  return value;
}

// The code of each integer of a format with a list of values, by the integer as
// a byte; -1: none.
using CodeTable = std::array<int8_t, 256>;
CodeTable CodesOf(const PanelFormat& format) {
  CodeTable codes = {};
  if (format.values == nullptr) return codes;
  for (int i = 0; i < 256; ++i) {
    const int quant = static_cast<int8_t>(i);
    int code = 0;  // the first of equal values
    while (code < 16 && format.values[code] != quant) ++code;
    codes[i] = static_cast<int8_t>(code == 16 ? -1 : code);
  }
  return codes;
}
// No constant expression: gcc 12 under UBSan takes no `values` for one.
const auto kCodes = [] {
  std::array<CodeTable, std::size(kPanelFormats)> tables = {};
  for (size_t i = 0; i < tables.size(); ++i) {
    tables[i] = CodesOf(kPanelFormats[i]);
  }
  return tables;
}();

// Four bytes as one word, the first in its lowest.
uint32_t LoadFour(const void* bytes) {
  uint32_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}
void StoreFour(uint32_t word, std::byte* out) {
  std::memcpy(out, &word, sizeof(word));
}

// The same byte four times.
uint32_t FourTimes(int byte) {
  return 0x01010101u * static_cast<uint32_t>(byte);
}

// Codes of four columns of one lane as vector v of a group of codes of 5 or 6
// bits; those that stand whole come first.
void StoreSplit(int bits, int v, uint32_t four, std::byte* mine) {
  if (v < WholeVectors(bits)) {
    StoreFour(four, mine + 64 * v);
    return;
  }
  for (const CodePiece& piece : SplitOf(bits, v).pieces) {
    std::byte* const stored = mine + 64 * piece.vector;
    const uint32_t part = (four & FourTimes(piece.mask())) << piece.shift();
    StoreFour(LoadFour(stored) | part, stored);
  }
}

// The code in byte `place` of vector v.
int LoadSplit(int bits, int v, int place, const std::byte* codes) {
  const auto stored = [&](int vector) {
    return std::to_integer<int>(codes[64 * vector + place]);
  };
  if (v < WholeVectors(bits)) return stored(v) & ((1 << bits) - 1);
  int code = 0;
  for (const CodePiece& piece : SplitOf(bits, v).pieces) {
    code |= stored(piece.vector) >> piece.shift() & piece.mask();
  }
  return code;
}

// Columns [0, group_cols) of one group of one lane, four at a time; see
// PanelFormat.
void StoreCodes(DType type, const int8_t* quants, int lane, std::byte* codes) {
  const PanelFormat& format = FormatOf(type);
  const int cols = format.group_cols;
  std::byte* const mine = codes + 4 * lane;
  if (format.code_bits == 8) {
    for (int c = 0; c < cols; c += 4) {
      StoreFour(LoadFour(quants + c), mine + 16 * c);
    }
    return;
  }
  int8_t code[32];
  int8_t all = 0;
  if (format.values == nullptr) {
    for (int c = 0; c < cols; ++c) {
      code[c] = static_cast<int8_t>(quants[c] + format.offset);
      all |= code[c];
    }
  } else {
    const CodeTable& table = kCodes[static_cast<size_t>(type)];
    for (int c = 0; c < cols; ++c) {
      code[c] = table[static_cast<uint8_t>(quants[c])];
      all |= code[c];
    }
  }
  CHECK(all >= 0 && all < 1 << format.code_bits)
      << "an integer that is no value of " << format.name;
  if (format.code_bits == 4) {
    for (int c = 0; c < cols; c += 8) {
      StoreFour(LoadFour(code + c) | LoadFour(code + c + 4) << 4, mine + 8 * c);
    }
    return;
  }
  for (int v = 0; v < cols / 4; ++v) {
    StoreSplit(format.code_bits, v, LoadFour(code + 4 * v), mine);
  }
}

// What one source block gives to one lane; `cols` of it lie before the panel's
// block that begins at `block`.
void StoreBlock(DType type, const BlockFormat& source,
                const UnpackedBlock& unpacked, int first_col, int lane,
                std::byte* block) {
  const PanelFormat& format = FormatOf(type);
  if (format.scale == ScaleCode::kProduct) {
    StoreHalf(block, lane, unpacked.d, DType::kF16);
    if (format.minimum) {
      StoreHalf(block, kPanelRows + lane, unpacked.dmin, DType::kF16);
    }
  }
  std::byte* group = block + format.block_header_bytes();
  for (int g = 0; g < format.groups(); ++g) {
    const int col = first_col + g * format.group_cols;
    const int from = col / source.group_elements;
    StoreScale(format.scale, group, lane, unpacked.scales[from],
               unpacked.group_scales[from]);
    if (format.minimum) {
      StoreScale(format.scale, group + kPanelRows * format.scale_bytes(), lane,
                 unpacked.minimums[from], unpacked.group_minimums[from]);
    }
    StoreCodes(type, unpacked.quants + col, lane,
               group + format.group_header_bytes());
    group += format.group_bytes();
  }
}

}  // namespace

void PackBlockRows(DType type, const BlockRows& rows, int64_t first_row,
                   std::byte* out) {
  const PanelFormat& format = FormatOf(type);
  const BlockFormat& source = rows.source;
  CHECK(source.unpack != nullptr && rows.cols % source.elements == 0 &&
        (type == DType::kQ8_ANY || format.name == source.name))
      << source.name << " into panels of " << format.name << ", cols "
      << rows.cols;
  const int64_t panel_bytes = ColumnBytes(type, rows.cols);
  const std::byte* blocks = rows.blocks;
  UnpackedBlock unpacked = {};
  for (int64_t row = first_row; row < first_row + rows.rows; ++row) {
    const int lane = static_cast<int>(row % kPanelRows);
    std::byte* at = out + row / kPanelRows * panel_bytes;
    for (int64_t col = 0; col < rows.cols; col += source.elements) {
      source.unpack(blocks, unpacked);
      blocks += source.bytes;
      for (int c = 0; c < source.elements; c += format.block_cols) {
        StoreBlock(type, source, unpacked, c, lane, at);
        at += format.block_bytes();
      }
    }
  }
}

DType PanelTypeOf(const BlockFormat& format) {
  if (format.plain) return format.exact;
  return FindDType(format.name).value_or(DType::kQ8_ANY);
}

LaneGroup LoadGroup(const PanelFormat& format, const std::byte* panel, int lane,
                    int64_t index) {
  const int64_t groups = format.groups();
  const std::byte* block = panel + index / groups * format.block_bytes();
  const std::byte* header = block + format.block_header_bytes() +
                            index % groups * format.group_bytes();
  const std::byte* minimums = header + kPanelRows * format.scale_bytes();
  LaneGroup group;
  group.codes = header + format.group_header_bytes();
  if (format.scale != ScaleCode::kProduct) {
    group.scale = LoadScale(format.scale, header, lane);
    if (format.minimum) group.minimum = LoadScale(format.scale, minimums, lane);
    return group;
  }
  group.of_block = LoadHalf(block, lane, DType::kF16);
  group.factor = static_cast<int8_t>(header[lane]);
  group.scale = group.of_block * static_cast<float>(group.factor);
  if (format.minimum) {
    group.minimum_of_block = LoadHalf(block, kPanelRows + lane, DType::kF16);
    group.minimum_factor = static_cast<int8_t>(minimums[lane]);
    group.minimum =
        group.minimum_of_block * static_cast<float>(group.minimum_factor);
  }
  return group;
}

int GroupQuant(const PanelFormat& format, const LaneGroup& group, int lane,
               int col) {
  const int v = col / 4;
  const int place = 4 * lane + col % 4;
  if (format.code_bits == 8) {
    return static_cast<int8_t>(group.codes[64 * v + place]);
  }
  if (format.code_bits == 4) {
    const int two = std::to_integer<int>(group.codes[64 * (v / 2) + place]);
    return format.values[two >> v % 2 * 4 & 15];
  }
  return LoadSplit(format.code_bits, v, place, group.codes) - format.offset;
}

float GroupSum(const float* x, int count) {
  float sums[kPanelRows];
  for (int i = 0; i < kPanelRows; ++i) {
    sums[i] = count == 32 ? x[i] + x[i + 16] : x[i];
  }
  for (int step = 8; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) sums[i] += sums[i + step];
  }
  return sums[0];
}

float PanelElement(const PanelMatrix& w, int64_t row, int64_t col) {
  const PanelFormat& format = FormatOf(w.dtype);
  if (format.plain()) return LoadPlain(w, row, col);
  const int lane = static_cast<int>(row % kPanelRows);
  const LaneGroup group =
      LoadGroup(format, PanelOf(w, row), lane, col / format.group_cols);
  const int quant = GroupQuant(format, group, lane,
                               static_cast<int>(col % format.group_cols));
  return group.scale * static_cast<float>(quant) - group.minimum;
}

float PanelDot(const PanelMatrix& w, int64_t row, const float* x) {
  const PanelFormat& format = FormatOf(w.dtype);
  float sum = 0.0f;
  if (format.plain()) {
    for (int64_t c = 0; c < w.cols; ++c) {
      sum = std::fma(x[c], LoadPlain(w, row, c), sum);
    }
    return sum;
  }
  const std::byte* panel = PanelOf(w, row);
  const int lane = static_cast<int>(row % kPanelRows);
  for (int64_t first = 0; first < w.cols; first += format.group_cols) {
    const LaneGroup group =
        LoadGroup(format, panel, lane, first / format.group_cols);
    float dot = 0.0f;
    for (int c = 0; c < format.group_cols; ++c) {
      const float quant =
          static_cast<float>(GroupQuant(format, group, lane, c));
      dot = std::fma(x[first + c], quant, dot);
    }
    sum = std::fma(group.scale, dot, sum);
    if (format.minimum) {
      sum =
          std::fma(-group.minimum, GroupSum(x + first, format.group_cols), sum);
    }
  }
  return sum;
}

}  // namespace bullpen::kernels
