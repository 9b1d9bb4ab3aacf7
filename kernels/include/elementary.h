// The elementary functions, each by one stated sequence of IEEE operations, so that scalar, vector
// and GPU code give the same bits (docs/arithmetic.md, "Elementary functions"). libm's functions
// are not used: vector code cannot reproduce them.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

namespace baleen::kernels {

inline constexpr float kLog2E = 0x1.715476p+0f;       // log2(e) rounded to fp32 ...
inline constexpr float kLog2ERest = 0x1.4ae0c0p-26f;  // ... and the rest
inline constexpr float kExp2Min = -125.0f;  // below it the result is 0: no denormal can appear
inline constexpr float kExp2Max = 128.0f;   // from here on the result is infinity

namespace internal {

// 1.5 * 2^23: adding it leaves |x| < 2^22 rounded to an integer (ties to even) in the low bits of
// the sum.
inline constexpr float kRoundingShift = 0x1.8p+23f;

// 2^(f + n) for |f| <= 0.5003, where `shifted` is n + kRoundingShift and n is in [-125, 128].
inline float Exp2Scaled(float f, float shifted) {
  float p = 0x1.41fb66p-13f;
  p = std::fma(p, f, 0x1.5f3ed8p-10f);
  p = std::fma(p, f, 0x1.3b2d4ep-7f);
  p = std::fma(p, f, 0x1.c6aee8p-5f);
  p = std::fma(p, f, 0x1.ebfbdcp-3f);
  p = std::fma(p, f, 0x1.62e430p-1f);
  p = std::fma(p, f, 1.0f);
  const std::uint32_t n =
      std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(kRoundingShift);
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (n << 23));
}

// The limits of the exponent `t`, and NaN.
inline float Exp2Limited(float t, float result) {
  result = t < kExp2Min ? 0.0f : result;
  return t < kExp2Max ? result : t + std::numeric_limits<float>::infinity();
}

}  // namespace internal

// 2^x. Exactly 1 at 0.
inline float Exp2(float x) {
  const float shifted = x + internal::kRoundingShift;
  const float f = x - (shifted - internal::kRoundingShift);
  return internal::Exp2Limited(x, internal::Exp2Scaled(f, shifted));
}

// e^x. Exactly 1 at 0.
inline float Exp(float x) {
  const float t = x * kLog2E;
  const float shifted = t + internal::kRoundingShift;
  const float n = shifted - internal::kRoundingShift;
  const float f = std::fma(x, kLog2ERest, std::fma(x, kLog2E, -n));
  return internal::Exp2Limited(t, internal::Exp2Scaled(f, shifted));
}

inline float Sigmoid(float x) { return 1.0f / (1.0f + Exp(-x)); }

inline float Silu(float x) { return x / (1.0f + Exp(-x)); }

// Natural logarithm of a positive, finite, normal number, in double precision: k ln 2 + 2 atanh(s),
// s = (m - 1) / (m + 1), with m in [sqrt(1/2), sqrt(2)).
inline double Log(double x) {
  constexpr std::uint64_t kMantissa = 0x000fffffffffffffull;
  constexpr std::uint64_t kOne = 0x3ff0000000000000ull;
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  int k = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & kMantissa) | kOne);
  if (m >= 0x1.6a09e667f3bcdp+0) {
    m = m * 0.5;
    k += 1;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double s2 = s * s;
  double sum = 1.0 / 23.0;
  for (int odd = 21; odd >= 1; odd -= 2) {
    sum = sum * s2 + 1.0 / odd;
  }
  return k * 0x1.62e42fefa39efp-1 + 2.0 * s * sum;
}

// {cosine, sine} of an angle in [0, 2^19), in double precision: reduction by pi/2 in three parts of
// 33 bits, then Taylor polynomials.
inline std::pair<double, double> CosineSine(double angle) {
  constexpr double kShift = 0x1.8p+52;  // rounds to an integer, as kRoundingShift does in fp32
  const double n = (angle * 0x1.45f306dc9c883p-1 + kShift) - kShift;
  const double r =
      ((angle - n * 0x1.921fb544p+0) - n * 0x1.0b4611a6p-34) - n * 0x1.3198a2e037073p-69;
  const double r2 = r * r;
  double sine = 0.0;
  double cosine = 0.0;
  for (int i = 19; i >= 3; i -= 2) {
    sine = (1.0 + sine) * (-r2 / (i * (i - 1.0)));
    cosine = (1.0 + cosine) * (-r2 / ((i - 1.0) * (i - 2.0)));
  }
  sine = r + r * sine;
  cosine = 1.0 + cosine;
  switch (static_cast<std::int64_t>(n) & 3) {
    case 0:
      return {cosine, sine};
    case 1:
      return {-sine, cosine};
    case 2:
      return {-cosine, -sine};
    default:
      return {sine, -cosine};
  }
}

}  // namespace baleen::kernels
