// Accuracy of the elementary functions over dense sweeps, against float64 libm; and their special
// values.
#include "kernels/include/elementary.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "tests/kernels/kernel_test_util.h"

namespace baleen::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Distance in units of the last place of the exact value.
double Ulps(float value, double exact) {
  int exponent = 0;
  std::frexp(exact, &exponent);
  return std::fabs(value - exact) / std::ldexp(1.0, exponent - 24);
}

// Largest error over every `step`-th float between two positive floats, of both signs where `both`.
template <typename F, typename G>
double WorstUlps(float low, float high, std::uint32_t step, bool both, F function, G exact) {
  double worst = 0.0;
  for (std::uint32_t bits = Bits(low); bits <= Bits(high); bits += step) {
    const float x = std::bit_cast<float>(bits);
    worst = std::max(worst, Ulps(function(x), exact(static_cast<double>(x))));
    if (both) {
      worst = std::max(worst, Ulps(function(-x), exact(-static_cast<double>(x))));
    }
  }
  return worst;
}

TEST(Exp2, IsWithinOneUlp) {
  EXPECT_LT(WorstUlps(1e-6f, 124.99f, 199, true, Exp2, [](double x) { return std::exp2(x); }), 1.0);
}

TEST(Exp, IsWithinOneAndAQuarterUlp) {
  EXPECT_LT(WorstUlps(1e-6f, 86.6f, 199, true, Exp, [](double x) { return std::exp(x); }), 1.25);
}

TEST(Sigmoid, IsWithinTwoAndThreeQuarterUlps) {
  const auto exact = [](double x) { return 1.0 / (1.0 + std::exp(-x)); };
  EXPECT_LT(WorstUlps(1e-6f, 80.0f, 199, true, Sigmoid, exact), 2.75);
}

TEST(Silu, IsWithinTwoAndThreeQuarterUlps) {
  const auto exact = [](double x) { return x / (1.0 + std::exp(-x)); };
  EXPECT_LT(WorstUlps(1e-6f, 80.0f, 199, true, Silu, exact), 2.75);
}

TEST(Exp2, SpecialValues) {
  EXPECT_EQ(Exp2(0.0f), 1.0f);
  EXPECT_EQ(Exp2(-0.0f), 1.0f);
  EXPECT_EQ(Exp2(10.0f), 1024.0f);
  EXPECT_EQ(Exp2(-125.0f), 0x1p-125f);
  EXPECT_EQ(Exp2(std::nextafter(-125.0f, -200.0f)), 0.0f);
  EXPECT_EQ(Exp2(-kInfinity), 0.0f);
  EXPECT_EQ(Exp2(-1e30f), 0.0f);
  EXPECT_EQ(Exp2(127.0f), 0x1p+127f);
  EXPECT_LT(Exp2(std::nextafter(128.0f, 0.0f)), kInfinity);
  EXPECT_EQ(Exp2(128.0f), kInfinity);
  EXPECT_EQ(Exp2(1e30f), kInfinity);
  EXPECT_EQ(Exp2(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(Exp2(kNan)));
}

TEST(Exp, SpecialValues) {
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-kInfinity), 0.0f);
  EXPECT_EQ(Exp(-1000.0f), 0.0f);
  EXPECT_EQ(Exp(1000.0f), kInfinity);
  EXPECT_EQ(Exp(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(Exp(kNan)));
}

TEST(Sigmoid, SpecialValues) {
  EXPECT_EQ(Sigmoid(0.0f), 0.5f);
  EXPECT_EQ(Sigmoid(kInfinity), 1.0f);
  EXPECT_EQ(Sigmoid(-kInfinity), 0.0f);
  EXPECT_EQ(Sigmoid(-1000.0f), 0.0f);
  EXPECT_TRUE(std::isnan(Sigmoid(kNan)));
  EXPECT_EQ(Silu(0.0f), 0.0f);
  EXPECT_EQ(Silu(1000.0f), 1000.0f);
  EXPECT_EQ(Silu(-1000.0f), 0.0f);
}

TEST(Exp2, NeverDecreases) {
  float before = 0.0f;
  for (float x = -126.0f; x < 1.0f; x += 0x1p-13f) {
    const float value = Exp2(x);
    ASSERT_GE(value, before) << x;
    before = value;
  }
}

TEST(Log, IsExactToAFewDoubleUlps) {
  Random random(1);
  for (int i = 0; i < 200000; ++i) {
    const double x = std::exp(random.Normal(20.0f));
    const double exact = std::log(x);
    ASSERT_NEAR(Log(x), exact, 4e-16 * std::max(1.0, std::fabs(exact))) << x;
  }
  EXPECT_EQ(Log(1.0), 0.0);
}

TEST(CosineSine, IsExactToAFewDoubleUlps) {
  Random random(2);
  for (int i = 0; i < 200000; ++i) {
    // The angles of RoPE: fp32 numbers up to the largest context.
    const double angle = static_cast<float>(random.Below(1u << 30)) * 0x1p-12;
    const auto [cosine, sine] = CosineSine(angle);
    ASSERT_NEAR(cosine, std::cos(angle), 3e-16) << angle;
    ASSERT_NEAR(sine, std::sin(angle), 3e-16) << angle;
  }
  EXPECT_EQ(CosineSine(0.0).first, 1.0);
  EXPECT_EQ(CosineSine(0.0).second, 0.0);
}

}  // namespace
}  // namespace baleen::kernels
