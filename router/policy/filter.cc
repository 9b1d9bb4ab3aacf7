#include "router/policy/filter.h"

#include <numeric>

#include "observability/base/check.h"

namespace baleen::router {

std::string_view ToString(Verdict verdict) {
  switch (verdict) {
    case Verdict::kFits:
      return "fits";
    case Verdict::kAvoided:
      return "avoided";
    case Verdict::kDraining:
      return "draining";
    case Verdict::kForming:
      return "forming";
    case Verdict::kTooSmall:
      return "too_small";
    case Verdict::kSuspect:
      return "suspect";
    case Verdict::kNoSequence:
      return "no_sequence";
    case Verdict::kNoMemory:
      return "no_memory";
  }
  BALEEN_CHECK(false, "a verdict has one of eight values");
}

std::uint32_t Verdicts::considered() const {
  return std::accumulate(counts.begin(), counts.end(), std::uint32_t{0});
}

std::uint32_t Verdicts::admitting() const {
  return considered() - of(Verdict::kAvoided) - of(Verdict::kDraining) - of(Verdict::kForming);
}

}  // namespace baleen::router
