#pragma once

#include "kernels/grouped_ffn.h"
#include "kernels/math_simd.h"

namespace bullpen::kernels {
namespace {

// The inner values of an expert, as kernels/grouped_ffn.h defines them.
template <typename V>
typename V::F Activate(const Activation& activation, typename V::F g,
                       typename V::F u) {
  if (activation.kind == Activation::Kind::kSwiGlu) {
    return V::Mul(SiluLanes<V>(g), u);
  }
  // Min and Max give their second operand where either is NaN.
  const typename V::F limit = V::Set(activation.limit);
  g = V::Min(limit, g);
  u = V::Max(V::Negate(limit), V::Min(limit, u));
  const typename V::F one = V::Set(1.0f);
  const typename V::F e =
      ExpLanes<V>(V::Negate(V::Mul(V::Set(activation.alpha), g)));
  return V::Mul(V::Div(g, V::Add(one, e)), V::Add(u, one));
}

}  // namespace
}  // namespace bullpen::kernels
