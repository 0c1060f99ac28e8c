#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string_view>

namespace bullpen::kernels {

// Rows of a weight matrix that are interleaved, lane by lane.
inline constexpr int kPanelRows = 16;

// Element types that kernels compute with: plain ones, named as in safetensors
// headers, and block formats, named as in GGUF files. Q8_ANY holds the values
// of any block format.
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kMXFP4,
  kQ8_ANY
};

// How the scales (and minimums) of a group are stored, one for each lane.
enum class ScaleCode : uint8_t {
  kNone,  // a plain type
  kF16,
  kBF16,
  kF32,
  kProduct  // F16 for each block times an 8-bit integer for each group
};

// The values of MXFP4's and IQ4_NL's 16 codes. Those of MXFP4 are twice the
// E2M1 numbers, so that they are integers; its scale is half as large.
inline constexpr int8_t kMxfp4Values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                            0, -1, -2, -3, -4, -6, -8, -12};
inline constexpr int8_t kIq4Values[16] = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
inline constexpr int8_t kUnsignedValues[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                               8, 9, 10, 11, 12, 13, 14, 15};
inline constexpr int8_t kSignedValues[16] = {-8, -7, -6, -5, -4, -3, -2, -1,
                                             0,  1,  2,  3,  4,  5,  6,  7};

// What a panel of a type holds. A plain type has one element of each lane for
// each column, in bands (types.h). A block type has blocks of `block_cols`
// columns, one after the other: for kProduct the lanes' F16 scales (and
// minimums); then each group: its scales (and minimums), then its codes, four
// columns of each lane side by side (what one 8-bit dot-product instruction
// takes):
//   8 bits: integers; columns 4v + b of lane r in byte 64 v + 4 r + b
//   4 bits: indices of `values`; that of column 8w + b in the low, that of
//           column 8w + 4 + b in the high half of byte 64 w + 4 r + b
//   5, 6 bits: as 8 bits where they stand whole, the others in what is left of
//           those bytes (split_codes.h)
// The integer of a code of 5 or 6 bits is the code minus `offset`.
struct PanelFormat {
  std::string_view name;
  int32_t block_cols = 1;  // the matrix's columns are a multiple of it
  int32_t group_cols = 1;  // 16 or 32 of a block type
  int32_t code_bits = 0;   // of a plain element: all of it
  ScaleCode scale = ScaleCode::kNone;
  bool minimum = false;
  const int8_t* values = nullptr;
  int32_t offset = 0;

  constexpr bool plain() const { return scale == ScaleCode::kNone; }
  constexpr int32_t block_header_bytes() const {
    return scale == ScaleCode::kProduct ? kPanelRows * 2 * (1 + minimum) : 0;
  }
  constexpr int32_t scale_bytes() const {  // of one lane and group
    return scale == ScaleCode::kNone      ? 0
           : scale == ScaleCode::kF32     ? 4
           : scale == ScaleCode::kProduct ? 1
                                          : 2;
  }
  constexpr int32_t group_header_bytes() const {
    return kPanelRows * scale_bytes() * (1 + minimum);
  }
  constexpr int32_t groups() const { return block_cols / group_cols; }
  constexpr int32_t group_bytes() const {
    return group_header_bytes() + group_cols * kPanelRows * code_bits / 8;
  }
  constexpr int32_t block_bytes() const {
    return block_header_bytes() + groups() * group_bytes();
  }
};

inline constexpr PanelFormat kPanelFormats[] = {
    {"F32", 1, 1, 32},
    {"F16", 1, 1, 16},
    {"BF16", 1, 1, 16},
    {"Q4_0", 32, 32, 4, ScaleCode::kF16, false, kSignedValues},
    {"Q4_1", 32, 32, 4, ScaleCode::kF16, true, kUnsignedValues},
    {"Q5_0", 32, 32, 5, ScaleCode::kF16, false, nullptr, 16},
    {"Q5_1", 32, 32, 5, ScaleCode::kF16, true},
    {"Q8_0", 32, 32, 8, ScaleCode::kF16, false},
    {"Q2_K", 256, 16, 4, ScaleCode::kProduct, true, kUnsignedValues},
    {"Q3_K", 256, 16, 4, ScaleCode::kProduct, false, kSignedValues},
    {"Q4_K", 256, 32, 4, ScaleCode::kProduct, true, kUnsignedValues},
    {"Q5_K", 256, 32, 5, ScaleCode::kProduct, true},
    {"Q6_K", 256, 16, 6, ScaleCode::kProduct, false, nullptr, 32},
    {"IQ4_NL", 32, 32, 4, ScaleCode::kF16, false, kIq4Values},
    {"IQ4_XS", 256, 32, 4, ScaleCode::kProduct, false, kIq4Values},
    // Its scales are powers of two, of which BF16 has them all.
    {"MXFP4", 32, 32, 4, ScaleCode::kBF16, false, kMxfp4Values},
    {"Q8_ANY", 32, 16, 8, ScaleCode::kF32, true},
};

constexpr const PanelFormat& FormatOf(DType type) {
  return kPanelFormats[static_cast<int>(type)];
}
constexpr bool IsPlain(DType type) { return FormatOf(type).plain(); }
constexpr std::string_view DTypeName(DType type) { return FormatOf(type).name; }

// The type of that name.
constexpr std::optional<DType> FindDType(std::string_view name) {
  for (size_t i = 0; i < std::size(kPanelFormats); ++i) {
    if (kPanelFormats[i].name == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

// Of a plain type's element.
constexpr int DTypeBytes(DType type) { return type == DType::kF32 ? 4 : 2; }

// From the first column of a panel to column `cols`, a multiple of the type's
// block.
constexpr int64_t ColumnBytes(DType type, int64_t cols) {
  return cols / FormatOf(type).block_cols * FormatOf(type).block_bytes();
}

}  // namespace bullpen::kernels
