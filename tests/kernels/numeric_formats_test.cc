// Conversions between fp32, bf16 and e4m3, over all codes where there are few enough.
#include "kernels/include/numeric_formats.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "tests/kernels/kernel_test_util.h"

namespace baleen::kernels {
namespace {

TEST(E4m3, EveryCodeMeansWhatTheFormatSays) {
  for (int code = 0; code < 256; ++code) {
    const int exponent = code >> 3 & 15;
    const int mantissa = code & 7;
    const float value = E4m3ToFloat(static_cast<std::uint8_t>(code));
    EXPECT_EQ(std::signbit(value), code >= 128) << code;
    if (exponent == 15 && mantissa == 7) {
      EXPECT_TRUE(std::isnan(value)) << code;
    } else if (exponent == 0) {
      EXPECT_EQ(std::fabs(value), std::ldexp(mantissa, -9)) << code;
    } else {
      EXPECT_EQ(std::fabs(value), std::ldexp(8 + mantissa, exponent - 10)) << code;
    }
  }
}

TEST(E4m3, EveryCodeIsExactInBf16) {
  for (int code = 0; code < 256; ++code) {
    const float value = E4m3ToFloat(static_cast<std::uint8_t>(code));
    EXPECT_EQ(Bits(Bf16ToFloat(kE4m3ToBf16[code])), Bits(value)) << code;
    EXPECT_TRUE(value == 0.0f || !(std::fabs(value) < std::numeric_limits<float>::min())) << code;
  }
}

TEST(E4m3, EveryCodeSurvivesTheRoundTrip) {
  for (std::uint32_t code = 0; code < 256; ++code) {
    EXPECT_EQ(FloatToE4m3(E4m3ToFloat(static_cast<std::uint8_t>(code))), code);
  }
}

// Between each pair of neighbouring codes: just below the middle, the middle, just above.
TEST(E4m3, RoundsToNearestAndTiesToEven) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (std::uint32_t code = 0; code < 0x7e; ++code) {
    const float middle = (E4m3ToFloat(static_cast<std::uint8_t>(code)) +
                          E4m3ToFloat(static_cast<std::uint8_t>(code + 1))) /
                         2;
    for (const std::uint32_t sign : {0u, 0x80u}) {
      const auto of = [sign](float value) { return FloatToE4m3(sign != 0 ? -value : value); };
      ASSERT_EQ(of(std::nextafter(middle, 0.0f)), code | sign);
      ASSERT_EQ(of(middle), (code + (code & 1u)) | sign) << code;
      ASSERT_EQ(of(std::nextafter(middle, kInfinity)), (code + 1) | sign);
    }
  }
}

TEST(E4m3, TooLargeBecomesTheLargest) {
  for (const float value :
       {449.0f, 464.0f, 480.0f, 1e30f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(FloatToE4m3(value), 0x7e) << value;
    EXPECT_EQ(FloatToE4m3(-value), 0xfe) << value;
  }
  EXPECT_TRUE(std::isnan(E4m3ToFloat(FloatToE4m3(kNan))));
  EXPECT_TRUE(std::isnan(E4m3ToFloat(FloatToE4m3(-kNan))));
}

TEST(Bf16, EveryCodeSurvivesTheRoundTrip) {
  for (std::uint32_t code = 0; code < 65536; ++code) {
    const auto bits = static_cast<std::uint16_t>(code);
    const std::uint32_t magnitude = code & 0x7fffu;
    std::uint32_t expected = code;
    if (magnitude < 0x80u) {
      expected = code & 0x8000u;  // denormals are zero
    } else if (magnitude > 0x7f80u) {
      expected = code | 0x40u;  // NaN stays NaN, and quiet
    }
    EXPECT_EQ(FloatToBf16(Bf16ToFloat(bits)), expected) << code;
  }
}

// Between each pair of neighbouring bf16 values: just below the middle, the middle, just above.
TEST(Bf16, RoundsToNearestAndTiesToEven) {
  for (std::uint32_t code = 0x80u; code < 0x7f80u; ++code) {
    const std::uint32_t lower = code << 16;
    const auto at = [lower](std::uint32_t offset) {
      return FloatToBf16(std::bit_cast<float>(lower + offset));
    };
    ASSERT_EQ(at(0x7fff), code);
    ASSERT_EQ(at(0x8000), code + (code & 1u)) << code;
    ASSERT_EQ(at(0x8001), code + 1);
    ASSERT_EQ(FloatToBf16(std::bit_cast<float>((lower + 0x8001u) | 0x80000000u)),
              (code + 1) | 0x8000u);
  }
}

TEST(Bf16, OverflowsToInfinity) {
  EXPECT_EQ(FloatToBf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(FloatToBf16(-std::numeric_limits<float>::max()), 0xff80);
  EXPECT_EQ(FloatToBf16(std::bit_cast<float>(0x7f7f7fffu)), 0x7f7f);
}

TEST(Bf16, NanWithAnEmptyUpperMantissaStaysNan) {
  EXPECT_TRUE(std::isnan(Bf16ToFloat(FloatToBf16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(FloatEnvironment, FlushesDenormalsAndRestores) {
  const auto product = [](float a, float b) {
    asm("" : "+x"(a), "+x"(b));  // not at compile time
    return a * b;
  };
  constexpr float kTiny = std::numeric_limits<float>::min();
  constexpr float kDenormal = kTiny / 2;
  const unsigned before = _mm_getcsr();
  _mm_setcsr(0x1f80);  // the default of a fresh thread
  EXPECT_FALSE(FloatEnvironment::Active());
  EXPECT_NE(product(kTiny, 0.5f), 0.0f);
  {
    const FloatEnvironment environment;
    EXPECT_TRUE(FloatEnvironment::Active());
    EXPECT_EQ(product(kTiny, 0.5f), 0.0f);
    EXPECT_EQ(product(kDenormal, 0x1p+20f), 0.0f);
  }
  EXPECT_NE(product(kTiny, 0.5f), 0.0f);
  _mm_setcsr(before);
}

}  // namespace
}  // namespace baleen::kernels
