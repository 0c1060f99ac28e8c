#include "kernels/block_format.h"

#include <bit>
#include <cstring>

#include "base/check.h"
#include "base/vector_clones.h"

namespace bullpen::kernels {
namespace {

constexpr int kSuper = 256;  // elements of a K-quant block

float Half(const std::byte* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  return ToFloat(bits, DType::kF16);
}

int Low(std::byte b) { return std::to_integer<int>(b & std::byte{15}); }
int High(std::byte b) { return std::to_integer<int>(b >> 4); }
int Int(std::byte b) { return std::to_integer<int>(b); }

// 32 codes in 16 bytes: the low nibbles come first.
template <typename Value>
void UnpackNibbles(const std::byte* codes, Value value, int8_t* out) {
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<int8_t>(value(Low(codes[i]), i));
    out[i + 16] = static_cast<int8_t>(value(High(codes[i]), i + 16));
  }
}

// Bit i of the 32 at `bits`, as the fifth bit of a code.
int FifthBit(const std::byte* bits, int i) {
  return (Int(bits[i / 8]) >> (i % 8) & 1) << 4;
}

void UnpackQ4_0(const std::byte* block, UnpackedBlock& out) {
  out.scales[0] = Half(block);
  out.minimums[0] = 0;
  UnpackNibbles(block + 2, [](int code, int) { return code - 8; }, out.quants);
}

void UnpackQ4_1(const std::byte* block, UnpackedBlock& out) {
  out.scales[0] = Half(block);
  out.minimums[0] = -Half(block + 2);
  UnpackNibbles(block + 4, [](int code, int) { return code; }, out.quants);
}

void UnpackQ5_0(const std::byte* block, UnpackedBlock& out) {
  out.scales[0] = Half(block);
  out.minimums[0] = 0;
  UnpackNibbles(
      block + 6,
      [&](int code, int i) { return (code | FifthBit(block + 2, i)) - 16; },
      out.quants);
}

void UnpackQ5_1(const std::byte* block, UnpackedBlock& out) {
  out.scales[0] = Half(block);
  out.minimums[0] = -Half(block + 2);
  UnpackNibbles(
      block + 8, [&](int code, int i) { return code | FifthBit(block + 4, i); },
      out.quants);
}

void UnpackQ8_0(const std::byte* block, UnpackedBlock& out) {
  out.scales[0] = Half(block);
  out.minimums[0] = 0;
  std::memcpy(out.quants, block + 2, 32);
}

void SetGroup(UnpackedBlock& out, int g, int scale, int minimum) {
  out.group_scales[g] = static_cast<int8_t>(scale);
  out.group_minimums[g] = static_cast<int8_t>(minimum);
  out.scales[g] = out.d * static_cast<float>(scale);
  out.minimums[g] = out.dmin * static_cast<float>(minimum);
}

// 16 scales (low nibbles) and minimums (high), then 2-bit codes: 32 bytes hold
// 128 elements, each 2 bits of them 32.
void UnpackQ2_K(const std::byte* block, UnpackedBlock& out) {
  out.d = Half(block + 80);
  out.dmin = Half(block + 82);
  for (int g = 0; g < 16; ++g) {
    SetGroup(out, g, Low(block[g]), High(block[g]));
  }
  for (int i = 0; i < kSuper; ++i) {
    const int byte = Int(block[16 + i / 128 * 32 + i % 32]);
    out.quants[i] = static_cast<int8_t>(byte >> (i % 128 / 32 * 2) & 3);
  }
}

// A clear bit of the first 32 bytes takes 4 off the 2-bit code. The 16 scales
// have 6 bits: low nibbles in 8 bytes, two high bits each in 4 more.
void UnpackQ3_K(const std::byte* block, UnpackedBlock& out) {
  const std::byte* scales = block + 96;
  out.d = Half(block + 108);
  out.dmin = 0;
  for (int g = 0; g < 16; ++g) {
    const int low = g < 8 ? Low(scales[g]) : High(scales[g - 8]);
    const int high = Int(scales[8 + g % 4]) >> (g / 4 * 2) & 3;
    SetGroup(out, g, (low | high << 4) - 32, 0);
  }
  for (int i = 0; i < kSuper; ++i) {
    const int low = Int(block[32 + i / 128 * 32 + i % 32]);
    const int high = Int(block[i % 32]) >> (i / 32) & 1;
    out.quants[i] = static_cast<int8_t>((low >> (i % 128 / 32 * 2) & 3) -
                                        (high != 0 ? 0 : 4));
  }
}

// The head of Q4_K and Q5_K: two halfs, then 8 scales and 8 minimums of 6 bits
// in 12 bytes: 4 bytes of scales, 4 of minimums, whose two high bits belong to
// the scales and minimums of groups 4 to 7, and 4 of their low nibbles.
void UnpackScalesAndMinimums(const std::byte* block, UnpackedBlock& out) {
  out.d = Half(block);
  out.dmin = Half(block + 2);
  const std::byte* packed = block + 4;
  for (int g = 0; g < 8; ++g) {
    int scale, minimum;
    if (g < 4) {
      scale = Int(packed[g]) & 63;
      minimum = Int(packed[g + 4]) & 63;
    } else {
      scale = Low(packed[g + 4]) | Int(packed[g - 4]) >> 6 << 4;
      minimum = High(packed[g + 4]) | Int(packed[g]) >> 6 << 4;
    }
    SetGroup(out, g, scale, minimum);
  }
}

// 32 bytes hold 64 elements: the low nibbles the first 32 of them. Loops go
// over elements whose codes stand alike, which makes vectors of them.
void UnpackKNibbles(const std::byte* codes, int8_t* out) {
  for (int part = 0; part < kSuper / 64; ++part) {
    for (int i = 0; i < 32; ++i) {
      out[part * 64 + i] = static_cast<int8_t>(Low(codes[part * 32 + i]));
      out[part * 64 + 32 + i] = static_cast<int8_t>(High(codes[part * 32 + i]));
    }
  }
}

void UnpackQ4_K(const std::byte* block, UnpackedBlock& out) {
  UnpackScalesAndMinimums(block, out);
  UnpackKNibbles(block + 16, out.quants);
}

void UnpackQ5_K(const std::byte* block, UnpackedBlock& out) {
  UnpackScalesAndMinimums(block, out);
  UnpackKNibbles(block + 48, out.quants);
  for (int part = 0; part < kSuper / 32; ++part) {
    for (int i = 0; i < 32; ++i) {
      const int high = Int(block[16 + i]) >> part & 1;
      out.quants[part * 32 + i] |= static_cast<int8_t>(high << 4);
    }
  }
}

void UnpackQ6_K(const std::byte* block, UnpackedBlock& out) {
  out.d = Half(block + 208);
  out.dmin = 0;
  for (int g = 0; g < 16; ++g) {
    SetGroup(out, g, static_cast<int8_t>(block[192 + g]), 0);
  }
  // Of each 128 elements, 64 bytes hold the low nibbles and 32 the two high
  // bits; 32 elements at a time have theirs in the same place.
  for (int part = 0; part < kSuper / 32; ++part) {
    const int half = part / 4, quarter = part % 4;
    const std::byte* low = block + half * 64 + quarter % 2 * 32;
    const std::byte* high = block + 128 + half * 32;
    for (int i = 0; i < 32; ++i) {
      const int nibble = quarter < 2 ? Low(low[i]) : High(low[i]);
      const int bits = Int(high[i]) >> (quarter * 2) & 3;
      out.quants[part * 32 + i] =
          static_cast<int8_t>((nibble | bits << 4) - 32);
    }
  }
}

void UnpackIQ4_NL(const std::byte* block, UnpackedBlock& out) {
  out.scales[0] = Half(block);
  out.minimums[0] = 0;
  UnpackNibbles(
      block + 2, [](int code, int) { return kIq4Values[code]; }, out.quants);
}

// 8 groups of IQ4_NL codes with scales of 6 bits: two high bits each in a
// 16-bit word, low nibbles in 4 bytes.
void UnpackIQ4_XS(const std::byte* block, UnpackedBlock& out) {
  out.d = Half(block);
  out.dmin = 0;
  const int high = Int(block[2]) | Int(block[3]) << 8;
  for (int g = 0; g < 8; ++g) {
    const std::byte nibbles = block[4 + g / 2];
    const int low = g % 2 == 0 ? Low(nibbles) : High(nibbles);
    SetGroup(out, g, (low | (high >> (2 * g) & 3) << 4) - 32, 0);
    UnpackNibbles(
        block + 8 + 16 * g, [](int code, int) { return kIq4Values[code]; },
        out.quants + 32 * g);
  }
}

void UnpackMXFP4(const std::byte* block, UnpackedBlock& out) {
  out.scales[0] = Mxfp4Scale(static_cast<uint8_t>(block[0]));
  out.minimums[0] = 0;
  UnpackNibbles(
      block + 1, [](int code, int) { return kMxfp4Values[code]; }, out.quants);
}

constexpr DType kF32 = DType::kF32;
constexpr BlockFormat kFormats[] = {
    {"F32", 0, 1, 4, kF32, 1, nullptr, true},
    {"F16", 1, 1, 2, DType::kF16, 1, nullptr, true},
    {"BF16", 30, 1, 2, DType::kBF16, 1, nullptr, true},
    {"Q4_0", 2, 32, 18, kF32, 32, UnpackQ4_0},
    {"Q4_1", 3, 32, 20, kF32, 32, UnpackQ4_1},
    {"Q5_0", 6, 32, 22, kF32, 32, UnpackQ5_0},
    {"Q5_1", 7, 32, 24, kF32, 32, UnpackQ5_1},
    {"Q8_0", 8, 32, 34, kF32, 32, UnpackQ8_0},
    {"Q2_K", 10, 256, 84, kF32, 16, UnpackQ2_K},
    {"Q3_K", 11, 256, 110, kF32, 16, UnpackQ3_K},
    {"Q4_K", 12, 256, 144, kF32, 32, UnpackQ4_K},
    {"Q5_K", 13, 256, 176, kF32, 32, UnpackQ5_K},
    {"Q6_K", 14, 256, 210, kF32, 16, UnpackQ6_K},
    {"IQ4_NL", 20, 32, 18, kF32, 32, UnpackIQ4_NL},
    {"IQ4_XS", 23, 256, 136, kF32, 32, UnpackIQ4_XS},
    // A value has two significant bits and an exponent that BF16 has, too.
    {"MXFP4", 39, 32, 17, DType::kBF16, 32, UnpackMXFP4},
    // Known by name and size only.
    {"Q8_1", 9, 32, 40},
    {"Q8_K", 15, 256, 292},
    {"IQ2_XXS", 16, 256, 66},
    {"IQ2_XS", 17, 256, 74},
    {"IQ3_XXS", 18, 256, 98},
    {"IQ1_S", 19, 256, 50},
    {"IQ3_S", 21, 256, 110},
    {"IQ2_S", 22, 256, 82},
    {"I8", 24, 1, 1},
    {"I16", 25, 1, 2},
    {"I32", 26, 1, 4},
    {"I64", 27, 1, 8},
    {"F64", 28, 1, 8},
    {"IQ1_M", 29, 256, 56},
    {"TQ1_0", 34, 256, 54},
    {"TQ2_0", 35, 256, 66},
    {"NVFP4", 40, 64, 36},
};

}  // namespace

std::span<const BlockFormat> BlockFormats() { return kFormats; }

const BlockFormat* FindBlockFormat(std::string_view name) {
  for (const BlockFormat& format : kFormats) {
    if (format.name == name) return &format;
  }
  return nullptr;
}

const BlockFormat* FindBlockFormat(int64_t gguf_id) {
  for (const BlockFormat& format : kFormats) {
    if (format.gguf_id == gguf_id) return &format;
  }
  return nullptr;
}

float Mxfp4Scale(uint8_t exponent) {
  // The two smallest are denormal: 2^-128 and 2^-127.
  return std::bit_cast<float>(exponent < 2
                                  ? uint32_t{0x00200000} << exponent
                                  : static_cast<uint32_t>(exponent - 1) << 23);
}

namespace {

BULLPEN_VECTOR_CLONES void FromBF16(const std::byte* bits, int64_t count,
                                    float* out) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t high;
    std::memcpy(&high, bits + 2 * i, sizeof(high));
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(high) << 16);
  }
}

BULLPEN_VECTOR_CLONES void ScaleGroups(const UnpackedBlock& block, int groups,
                                       int group_elements, float* out) {
  const int8_t* quants = block.quants;
  for (int g = 0; g < groups; ++g) {
    const float scale = block.scales[g], minimum = block.minimums[g];
    for (int i = 0; i < group_elements; ++i) {
      out[i] = scale * static_cast<float>(quants[i]) - minimum;
    }
    quants += group_elements;
    out += group_elements;
  }
}

}  // namespace

void Dequantise(const BlockFormat& format, const std::byte* blocks,
                int64_t count, float* out) {
  CHECK(format.readable() && count % format.elements == 0)
      << count << " elements of " << format.name;
  if (format.plain) {
    if (format.exact == DType::kF32) {
      std::memcpy(out, blocks, static_cast<size_t>(count) * sizeof(float));
      return;
    }
    if (format.exact == DType::kBF16) {
      FromBF16(blocks, count, out);
      return;
    }
    for (int64_t i = 0; i < count; ++i) out[i] = Half(blocks + 2 * i);
    return;
  }
  UnpackedBlock block;
  const int groups = format.elements / format.group_elements;
  for (; count > 0; count -= format.elements) {
    format.unpack(blocks, block);
    ScaleGroups(block, groups, format.group_elements, out);
    blocks += format.bytes;
    out += format.elements;
  }
}

}  // namespace bullpen::kernels
