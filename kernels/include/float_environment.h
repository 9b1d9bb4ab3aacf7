// The floating-point environment in which all arithmetic of docs/arithmetic.md is defined.
#pragma once

#include <immintrin.h>

namespace baleen::kernels {

// Round to nearest even, exceptions masked, denormal inputs are zero (DAZ) and denormal results are
// flushed to zero (FTZ), as AMX and AVX512-BF16 always do. Sets it for the current thread and
// restores what was there before. Every thread that calls an op must hold one.
class FloatEnvironment {
 public:
  FloatEnvironment() : saved_(_mm_getcsr()) { _mm_setcsr(kRequired); }
  ~FloatEnvironment() { _mm_setcsr(saved_); }
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

  // Whether the current thread has it. Sticky exception flags do not matter.
  static bool Active() { return (_mm_getcsr() & ~kStickyFlags) == kRequired; }

 private:
  static constexpr unsigned kStickyFlags = 0x003f;
  static constexpr unsigned kRequired =
      0x9fc0;  // FTZ | DAZ | all exceptions masked | round to nearest

  unsigned saved_;
};

}  // namespace baleen::kernels
