// Vector pieces that the kernels share, compiled once for each target:
// included after hwy/foreach_target.h by each kernel file.
#if defined(HEADCOUNT_BACKEND_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HEADCOUNT_BACKEND_CPU_SIMD_INL_H_
#undef HEADCOUNT_BACKEND_CPU_SIMD_INL_H_
#else
#define HEADCOUNT_BACKEND_CPU_SIMD_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace headcount {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, so that a block of 16 tokens, or half a panel, is always a
// whole number of vectors.
using F32 = hn::CappedTag<float, 16>;
using VF32 = hn::Vec<F32>;
inline constexpr size_t kLanes = hn::MaxLanes(F32());

// Vectors that the target can hold at a time, with room for operands.
inline constexpr bool kManyRegisters = HWY_TARGET == HWY_AVX3_DL ||
                                       HWY_TARGET == HWY_AVX3 ||
                                       HWY_TARGET == HWY_NEON;

template <class D>
HWY_INLINE hn::Vec<D> LoadFloats(D d, const float* from) {
  return hn::LoadU(d, from);
}

// Floats of the bits of halves: exact for every half, infinities and NaN
// included (what Highway emulates in plain C++ is not).
template <class D>
HWY_INLINE hn::Vec<D> HalvesToFloats(D d,
                                     hn::Vec<hn::Rebind<uint16_t, D>> bits) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  const hn::RebindToUnsigned<D> du;
  const auto half = hn::PromoteTo(du, bits);
  const auto sign = hn::ShiftLeft<16>(hn::And(half, hn::Set(du, 0x8000u)));
  const auto magnitude = hn::ShiftLeft<13>(hn::And(half, hn::Set(du, 0x7FFFu)));
  const auto scaled = hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112f));
  const auto special = hn::VecFromMask(
      du, hn::Eq(hn::And(half, hn::Set(du, 0x7C00u)), hn::Set(du, 0x7C00u)));
  const auto exponent = hn::And(special, hn::Set(du, 0x7F800000u));
  return hn::BitCast(d,
                     hn::Or(hn::BitCast(du, scaled), hn::Or(exponent, sign)));
#else
  return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), bits));
#endif
}

template <class D>
HWY_INLINE hn::Vec<D> LoadHalves(D d, const uint16_t* from) {
  return HalvesToFloats(d, hn::LoadU(hn::Rebind<uint16_t, D>(), from));
}

template <class D>
HWY_INLINE hn::Vec<D> LoadFloats(D d, const hwy::float16_t* from) {
  return LoadHalves(d, reinterpret_cast<const uint16_t*>(from));
}

// 2^x with a relative error below 2 ulp; exactly 1 at 0, exactly 0 below -126,
// NaN for NaN. x: at most 127.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Exp2(D d, V x) {
  const hn::RebindToSigned<D> di;
  const V rounded = hn::Round(x);
  const V f = hn::Sub(x, rounded);  // [-0.5, 0.5]
  // 1 + f * q(f): q interpolates (2^f - 1) / f at the Chebyshev nodes.
  V q = hn::Set(d, 0.00015453162941960995f);
  q = hn::MulAdd(q, f, hn::Set(d, 0.0013390863364651736f));
  q = hn::MulAdd(q, f, hn::Set(d, 0.009618082557286533f));
  q = hn::MulAdd(q, f, hn::Set(d, 0.055503571142191135f));
  q = hn::MulAdd(q, f, hn::Set(d, 0.24022650760568082f));
  q = hn::MulAdd(q, f, hn::Set(d, 0.6931471880262287f));
  q = hn::MulAdd(q, f, hn::Set(d, 1.0f));
  const V lowest = hn::Set(d, -126.0f);
  const V exponent = hn::Min(hn::Max(rounded, lowest), hn::Set(d, 127.0f));
  const auto power =
      hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, exponent), hn::Set(di, 127)));
  return hn::IfThenZeroElse(hn::Lt(x, lowest),
                            hn::Mul(q, hn::BitCast(d, power)));
}

// Sum and maximum of 16 floats, joined by halves: the same bits on every
// target.
HWY_INLINE float Sum16(const float* HWY_RESTRICT v) {
  float s[8];
  for (size_t i = 0; i < 8; ++i) s[i] = v[i] + v[i + 8];
  for (size_t i = 0; i < 4; ++i) s[i] += s[i + 4];
  return (s[0] + s[2]) + (s[1] + s[3]);
}

HWY_INLINE float Max16(const float* HWY_RESTRICT v) {
  float m[8];
  for (size_t i = 0; i < 8; ++i) m[i] = v[i] > v[i + 8] ? v[i] : v[i + 8];
  for (size_t i = 0; i < 4; ++i) m[i] = m[i] > m[i + 4] ? m[i] : m[i + 4];
  const float a = m[0] > m[2] ? m[0] : m[2];
  const float b = m[1] > m[3] ? m[1] : m[3];
  return a > b ? a : b;
}

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#endif  // the per-target guard
