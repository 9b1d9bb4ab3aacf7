// BALEEN_CHECK: a broken invariant is a bug in this program; stop at once, and let the supervisor
// restart it.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace baleen::internal {

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition,
                                     const char* why) {
  std::fprintf(stderr, "%s:%d: check failed: %s: %s\n", file, line, condition, why);
  std::abort();
}

}  // namespace baleen::internal

// Always on, in release builds too. `why` is a string literal that says what the invariant means.
#define BALEEN_CHECK(condition, why)                                        \
  do {                                                                      \
    if (!(condition)) [[unlikely]] {                                        \
      ::baleen::internal::CheckFailed(__FILE__, __LINE__, #condition, why); \
    }                                                                       \
  } while (false)
