#include "kernels/block_quantise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/vector_clones.h"
#include "kernels/scale_search.h"
#include "kernels/types.h"

namespace bullpen::kernels {
namespace {

void PutHalf(float value, std::byte* out) {
  const uint16_t bits = FromFloat(value, DType::kF16);
  std::memcpy(out, &bits, sizeof(bits));
}

float Rounded(float value) {
  return ToFloat(FromFloat(value, DType::kF16), DType::kF16);
}

std::byte Byte(int value) { return static_cast<std::byte>(value); }

// 1 / d, or 0 where there is nothing to scale.
float Inverse(float d) { return d == 0 ? 0 : 1 / d; }

// |x| as an integer, which orders as it does.
uint32_t Magnitude(float x) { return std::bit_cast<uint32_t>(x) & 0x7fffffff; }

// The largest |x|. Of integers, so that compilers make vectors of it.
uint32_t LargestMagnitude(const float* x, int count) {
  uint32_t most = 0;
  for (int i = 0; i < count; ++i) most = std::max(most, Magnitude(x[i]));
  return most;
}

// The value of the largest magnitude, the first of equals.
float Extreme(const float* x, int count) {
  const uint32_t most = LargestMagnitude(x, count);
  return *std::find_if(x, x + count - 1,
                       [&](float value) { return Magnitude(value) == most; });
}

// The importance from element i on, if there is any.
const float* At(const float* importance, int64_t i) {
  return importance != nullptr ? importance + i : nullptr;
}

// 32 codes of 4 bits, the low nibbles first.
void PutNibbles(const int* codes, std::byte* out) {
  for (int i = 0; i < 16; ++i) {
    out[i] = Byte((codes[i] & 15) | (codes[i + 16] & 15) << 4);
  }
}

// The fifth bits of 32 codes.
void PutFifthBits(const int* codes, std::byte* out) {
  std::memset(out, 0, 4);
  for (int i = 0; i < 32; ++i) out[i / 8] |= Byte(codes[i] >> 4 << i % 8);
}

// Codes of Q4_0 (half = 8) and Q5_0 (16): the extreme value becomes code 0.
float SignedCodes(const float* x, int half, const float* importance,
                  int* codes) {
  const float d = importance != nullptr
                      ? SearchScale(x, 32, half, importance)
                      : Extreme(x, 32) / static_cast<float>(-half);
  const float inverse = Inverse(d);
  for (int i = 0; i < 32; ++i) {
    const float code = x[i] * inverse + (static_cast<float>(half) + 0.5f);
    codes[i] = std::clamp(static_cast<int>(code), 0, 2 * half - 1);
  }
  return d;
}

struct Affine {
  float d, minimum;
};

// Codes of Q4_1 (most = 15) and Q5_1 (31), from the least value up.
Affine UnsignedCodes(const float* x, int most, const float* importance,
                     int* codes) {
  const auto [least, greatest] = std::minmax_element(x, x + 32);
  Affine with = {(*greatest - *least) / static_cast<float>(most), *least};
  // The search knows minimums up to zero.
  if (importance != nullptr && *least <= 0) {
    const Scaled found = SearchScaleAndMinimum(x, most, importance);
    with = {found.scale, -found.minimum};
  }
  const float inverse = Inverse(with.d);
  for (int i = 0; i < 32; ++i) {
    const float code = (x[i] - with.minimum) * inverse + 0.5f;
    codes[i] = std::clamp(static_cast<int>(code), 0, most);
  }
  return with;
}

BULLPEN_VECTOR_CLONES
void QuantiseQ4_0(const float* x, const float* importance, std::byte* out) {
  int codes[32];
  PutHalf(SignedCodes(x, 8, importance, codes), out);
  PutNibbles(codes, out + 2);
}

BULLPEN_VECTOR_CLONES
void QuantiseQ4_1(const float* x, const float* importance, std::byte* out) {
  int codes[32];
  const Affine scale = UnsignedCodes(x, 15, importance, codes);
  PutHalf(scale.d, out);
  PutHalf(scale.minimum, out + 2);
  PutNibbles(codes, out + 4);
}

BULLPEN_VECTOR_CLONES
void QuantiseQ5_0(const float* x, const float* importance, std::byte* out) {
  int codes[32];
  PutHalf(SignedCodes(x, 16, importance, codes), out);
  PutFifthBits(codes, out + 2);
  PutNibbles(codes, out + 6);
}

BULLPEN_VECTOR_CLONES
void QuantiseQ5_1(const float* x, const float* importance, std::byte* out) {
  int codes[32];
  const Affine scale = UnsignedCodes(x, 31, importance, codes);
  PutHalf(scale.d, out);
  PutHalf(scale.minimum, out + 2);
  PutFifthBits(codes, out + 4);
  PutNibbles(codes, out + 8);
}

// Codes are too fine for a search to pay, whatever counts.
BULLPEN_VECTOR_CLONES
void QuantiseQ8_0(const float* x, const float*, std::byte* out) {
  const float d = std::bit_cast<float>(LargestMagnitude(x, 32)) / 127.0f;
  // A denormal scale, which is stored as zero, may have none.
  const float inverse = std::isinf(Inverse(d)) ? 0 : Inverse(d);
  PutHalf(d, out);
  int8_t codes[32];
  for (int i = 0; i < 32; ++i) {
    // To the nearest, halves away from zero: the rest is exact.
    const float code = x[i] * inverse;
    const int whole = static_cast<int>(code);
    const float rest = code - static_cast<float>(whole);
    codes[i] = static_cast<int8_t>(whole + (rest >= 0.5f) - (rest <= -0.5f));
  }
  std::memcpy(out + 2, codes, sizeof(codes));
}

// Each value as the nearest code under a scale, the lower of two; the squared
// error.
float Mxfp4Codes(const float* x, float d, const float* importance, int* codes) {
  float error = 0;
  for (int i = 0; i < 32; ++i) {
    float least = INFINITY;
    codes[i] = 0;
    for (int code = 0; code < 16; ++code) {
      const float distance =
          std::fabs(d * static_cast<float>(kMxfp4Values[code]) - x[i]);
      if (distance < least) {
        least = distance;
        codes[i] = code;
      }
    }
    error += (importance != nullptr ? importance[i] : 1.0f) * least * least;
  }
  return error;
}

// The exponent of the largest value gives the scale; where some values count
// more, that or one of its neighbours.
BULLPEN_VECTOR_CLONES
void QuantiseMXFP4(const float* x, const float* importance, std::byte* out) {
  const float most = std::fabs(Extreme(x, 32));
  int exponent = 0;
  if (most > 0) {
    exponent = std::clamp(
        static_cast<int>(std::floor(std::log2(most))) - 2 + 127, 0, 254);
  }
  int codes[32];
  float least = Mxfp4Codes(x, Mxfp4Scale(static_cast<uint8_t>(exponent)),
                           importance, codes);
  const int middle = exponent;
  for (const int other : {middle - 1, middle + 1}) {
    if (importance == nullptr || other < 0 || other > 254) continue;
    int other_codes[32];
    const float error = Mxfp4Codes(x, Mxfp4Scale(static_cast<uint8_t>(other)),
                                   importance, other_codes);
    if (!(error < least)) continue;
    least = error;
    exponent = other;
    std::copy_n(other_codes, 32, codes);
  }
  out[0] = Byte(exponent);
  PutNibbles(codes, out + 1);
}

BULLPEN_VECTOR_CLONES
void QuantiseIQ4_NL(const float* x, const float* importance, std::byte* out) {
  const float d = SearchIq4Scale(x, importance);
  const float inverse = Inverse(d);
  int codes[32];
  for (int i = 0; i < 32; ++i) codes[i] = NearestIq4(x[i] * inverse);
  PutHalf(d, out);
  PutNibbles(codes, out + 2);
}

// Scales and minimums of 8 groups in 6 bits each, see UnpackQ4_K.
void PutScalesAndMinimums(const int* scales, const int* minimums,
                          std::byte* out) {
  for (int g = 0; g < 4; ++g) {
    out[g] = Byte(scales[g] | scales[g + 4] >> 4 << 6);
    out[g + 4] = Byte(minimums[g] | minimums[g + 4] >> 4 << 6);
    out[g + 8] = Byte((scales[g + 4] & 15) | (minimums[g + 4] & 15) << 4);
  }
}

// The head of Q4_K and Q5_K, and the codes 0 .. most of the 256 values.
void QuantiseGroups(const float* x, int most, const float* importance,
                    std::byte* head, int* codes) {
  Scaled groups[8];
  float most_scale = 0, most_minimum = 0;
  for (int g = 0; g < 8; ++g) {
    groups[g] = SearchScaleAndMinimum(x + 32 * g, most, At(importance, 32 * g));
    most_scale = std::max(most_scale, groups[g].scale);
    most_minimum = std::max(most_minimum, groups[g].minimum);
  }
  const float to_scale = most_scale > 0 ? 63 / most_scale : 0;
  const float to_minimum = most_minimum > 0 ? 63 / most_minimum : 0;
  int scales[8], minimums[8];
  for (int g = 0; g < 8; ++g) {
    scales[g] = std::min(63, NearestInt(to_scale * groups[g].scale));
    minimums[g] = std::min(63, NearestInt(to_minimum * groups[g].minimum));
  }
  PutHalf(most_scale / 63, head);
  PutHalf(most_minimum / 63, head + 2);
  PutScalesAndMinimums(scales, minimums, head + 4);
  const float d = Rounded(most_scale / 63);
  const float dmin = Rounded(most_minimum / 63);
  for (int i = 0; i < 256; ++i) {
    const float scale = d * static_cast<float>(scales[i / 32]);
    const float minimum = dmin * static_cast<float>(minimums[i / 32]);
    codes[i] = scale == 0
                   ? 0
                   : std::clamp(NearestInt((x[i] + minimum) / scale), 0, most);
  }
}

// 64 codes in 32 bytes: the first 32 in the low nibbles.
void PutKNibbles(const int* codes, std::byte* out) {
  for (int i = 0; i < 128; ++i) {
    const int* pair = codes + i / 32 * 64 + i % 32;
    out[i] = Byte((pair[0] & 15) | (pair[32] & 15) << 4);
  }
}

BULLPEN_VECTOR_CLONES
void QuantiseQ4_K(const float* x, const float* importance, std::byte* out) {
  int codes[256];
  QuantiseGroups(x, 15, importance, out, codes);
  PutKNibbles(codes, out + 16);
}

BULLPEN_VECTOR_CLONES
void QuantiseQ5_K(const float* x, const float* importance, std::byte* out) {
  int codes[256];
  QuantiseGroups(x, 31, importance, out, codes);
  std::memset(out + 16, 0, 32);
  for (int i = 0; i < 256; ++i) {
    out[16 + i % 32] |= Byte(codes[i] >> 4 << i / 32);
  }
  PutKNibbles(codes, out + 48);
}

BULLPEN_VECTOR_CLONES
void QuantiseQ6_K(const float* x, const float* importance, std::byte* out) {
  float scales[16];
  for (int g = 0; g < 16; ++g) {
    scales[g] = SearchScale(x + 16 * g, 16, 32, At(importance, 16 * g));
  }
  const float extreme = Extreme(scales, 16);
  std::memset(out, 0, 210);
  if (std::fabs(extreme) < 1e-15f) return;
  const float to_scale = -128 / extreme;
  PutHalf(1 / to_scale, out + 208);
  const float d = Rounded(1 / to_scale);
  for (int i = 0; i < 256; ++i) {
    const int factor = std::min(127, NearestInt(to_scale * scales[i / 16]));
    out[192 + i / 16] = Byte(static_cast<int8_t>(factor));
    const float scale = d * static_cast<float>(factor);
    const int code =
        scale == 0 ? 32 : std::clamp(NearestInt(x[i] / scale), -32, 31) + 32;
    out[i / 128 * 64 + i % 64] |= Byte((code & 15) << (i % 128 < 64 ? 0 : 4));
    out[128 + i / 128 * 32 + i % 32] |= Byte(code >> 4 << i % 128 / 32 * 2);
  }
}

struct Quantiser {
  std::string_view format;
  void (*quantise)(const float* x, const float* importance, std::byte* out);
};
constexpr Quantiser kQuantisers[] = {
    {"Q4_0", QuantiseQ4_0},     {"Q4_1", QuantiseQ4_1},
    {"Q5_0", QuantiseQ5_0},     {"Q5_1", QuantiseQ5_1},
    {"Q8_0", QuantiseQ8_0},     {"MXFP4", QuantiseMXFP4},
    {"IQ4_NL", QuantiseIQ4_NL}, {"Q4_K", QuantiseQ4_K},
    {"Q5_K", QuantiseQ5_K},     {"Q6_K", QuantiseQ6_K},
};

const Quantiser* FindQuantiser(const BlockFormat& format) {
  for (const Quantiser& quantiser : kQuantisers) {
    if (quantiser.format == format.name) return &quantiser;
  }
  return nullptr;
}

}  // namespace

bool CanQuantise(const BlockFormat& format) {
  return format.plain || FindQuantiser(format) != nullptr;
}

void Quantise(const BlockFormat& format, const float* values, int64_t count,
              std::byte* out, const float* importance) {
  if (format.plain) {
    CHECK(format.exact != DType::kF32) << "F32 needs no quantising";
    for (int64_t i = 0; i < count; ++i) {
      const uint16_t bits = FromFloat(values[i], format.exact);
      std::memcpy(out + 2 * i, &bits, sizeof(bits));
    }
    return;
  }
  const Quantiser* quantiser = FindQuantiser(format);
  CHECK(quantiser != nullptr && count % format.elements == 0)
      << count << " elements as " << format.name;
  for (int64_t i = 0; i < count; i += format.elements) {
    quantiser->quantise(values + i, At(importance, i), out);
    out += format.bytes;
  }
}

}  // namespace bullpen::kernels
