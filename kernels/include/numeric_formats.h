// Number formats of weights and activations: bf16 and FP8 e4m3, to and from fp32
// (docs/arithmetic.md, "Formats").
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace baleen::kernels {

// bf16 is held as its bits. Exact.
constexpr float Bf16ToFloat(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// Round to nearest, ties to even. Denormal inputs become zero of the same sign, NaN becomes a quiet
// NaN, too large becomes infinity.
constexpr std::uint16_t FloatToBf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t flushed = magnitude < 0x00800000u ? (bits >> 16) & 0x8000u : rounded;
  return static_cast<std::uint16_t>(magnitude > 0x7f800000u ? (bits >> 16) | 0x40u : flushed);
}

// FP8 e4m3 (the "fn" variant: no infinity, codes 0x7f and 0xff are NaN, largest finite value 448).
// Every value is a normal fp32 number and is exact in bf16.
constexpr float E4m3ToFloat(std::uint8_t code) {
  const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x80u) << 24;
  const std::uint32_t magnitude = code & 0x7fu;
  if (magnitude == 0x7fu) {
    return std::bit_cast<float>(sign | 0x7fc00000u);
  }
  if (magnitude < 8u) {  // subnormal: mantissa times 2^-9
    return (sign != 0 ? -0x1p-9f : 0x1p-9f) * static_cast<float>(magnitude);
  }
  return std::bit_cast<float>(sign | ((magnitude << 20) + ((127u - 7u) << 23)));
}

inline constexpr float kE4m3Max = 448.0f;

// Round to nearest, ties to even. What is larger than kE4m3Max becomes kE4m3Max of the same sign,
// infinity too; NaN becomes a NaN code.
constexpr std::uint8_t FloatToE4m3(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const auto sign = static_cast<std::uint8_t>((bits >> 24) & 0x80u);
  if (magnitude > 0x7f800000u) {
    return sign | 0x7fu;
  }
  if (magnitude < ((127u - 6u) << 23)) {
    // Subnormal: the last place of 2^14 is 2^-9, so that the sum is rounded to a multiple of it.
    const float shifted = std::bit_cast<float>(magnitude) + 0x1p+14f;
    const std::uint32_t code =
        std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(0x1p+14f);
    return static_cast<std::uint8_t>(sign | code);
  }
  const std::uint32_t rounded = (magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20;
  const std::uint32_t code = rounded - ((127u - 7u) << 3);
  return static_cast<std::uint8_t>(sign | (code < 0x7eu ? code : 0x7eu));
}

// The bf16 bits of every e4m3 code.
inline constexpr std::array<std::uint16_t, 256> kE4m3ToBf16 = [] {
  std::array<std::uint16_t, 256> table{};
  for (std::uint32_t code = 0; code < 256; ++code) {
    const float value = E4m3ToFloat(static_cast<std::uint8_t>(code));
    table[code] = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
  }
  return table;
}();

}  // namespace baleen::kernels
