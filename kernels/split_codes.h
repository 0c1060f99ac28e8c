#pragma once

#include <cstdint>

#include "kernels/panel_format.h"

// Codes of 5 and 6 bits in a panel's group. Of its vectors of four columns, 64
// bytes of one each, the first ones stand whole in the low bits of stored
// bytes; what those bytes have left at their top holds the others, in pieces.
// Most codes then cost one instruction to take out, and the others few.

namespace bullpen::kernels {

// Bits [to, to + bits) of a code are bits [from, from + bits) of the byte at
// its place in stored vector `vector`.
struct CodePiece {
  int vector = 0;
  int from = 0;
  int bits = 0;
  int to = 0;

  constexpr int mask() const { return ((1 << bits) - 1) << to; }
  constexpr int shift() const { return from - to; }  // to the right, >= 0
};

inline constexpr int kCodePieces = 3;  // at most; those of 0 bits are none
struct SplitCode {
  CodePiece pieces[kCodePieces];
};

// Of a group of 32 columns vectors 5, 6 and 7; of one of 16 vector 3.
inline constexpr SplitCode kSplit5[] = {
    {{{0, 5, 3, 0}, {1, 6, 2, 3}, {}}},
    {{{2, 5, 3, 0}, {3, 6, 2, 3}, {}}},
    {{{4, 5, 3, 0}, {1, 5, 1, 3}, {3, 5, 1, 4}}}};
inline constexpr SplitCode kSplit6[] = {
    {{{0, 6, 2, 0}, {1, 6, 2, 2}, {2, 6, 2, 4}}}};

// Vectors of codes of `bits` bits, 5 or 6, that stand whole.
constexpr int WholeVectors(int bits) { return bits == 5 ? 5 : 3; }
// Those of vector v, which is none of them.
constexpr const SplitCode& SplitOf(int bits, int v) {
  return (bits == 5 ? kSplit5 : kSplit6)[v - WholeVectors(bits)];
}

}  // namespace bullpen::kernels
