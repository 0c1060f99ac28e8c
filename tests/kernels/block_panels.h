#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>

#include "kernels/types.h"

namespace bullpen::kernels {

// Random panels of a block type: any codes, and scales that keep products in
// range.
class BlockPanelFiller {
 public:
  BlockPanelFiller(DType dtype, std::span<std::byte> out, std::mt19937& engine)
      : format_(FormatOf(dtype)),
        at_(out.data()),
        end_(out.data() + out.size()),
        engine_(engine) {}

  void Fill() {
    const bool product = format_.scale == ScaleCode::kProduct;
    while (at_ < end_) {
      if (product) Scales(format_.block_header_bytes());
      for (int c = 0; c < format_.block_cols; c += format_.group_cols) {
        const int header = format_.group_header_bytes();
        product ? Bytes(header) : Scales(header);
        Bytes(format_.group_bytes() - header);
      }
    }
  }

 private:
  void Bytes(int count) {
    while (count-- > 0) *at_++ = static_cast<std::byte>(engine_());
  }
  void Scales(int bytes) {
    const std::byte* end = at_ + bytes;
    std::normal_distribution<float> normal(0.0f, 0.01f);
    while (at_ < end) {
      const float scale = normal(engine_);
      if (format_.scale == ScaleCode::kF32) {
        std::memcpy(at_, &scale, 4);
        at_ += 4;
        continue;
      }
      const bool bf16 = format_.scale == ScaleCode::kBF16;
      const uint16_t half = FromFloat(scale, bf16 ? DType::kBF16 : DType::kF16);
      std::memcpy(at_, &half, 2);
      at_ += 2;
    }
  }

  const PanelFormat& format_;
  std::byte* at_;
  const std::byte* end_;
  std::mt19937& engine_;
};

inline void FillBlockPanels(DType dtype, std::span<std::byte> out,
                            std::mt19937& engine) {
  BlockPanelFiller(dtype, out, engine).Fill();
}

}  // namespace bullpen::kernels
