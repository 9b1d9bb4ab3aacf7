// BALEEN_CHECK: a broken invariant is a bug in this program; stop at once, and let the supervisor
// restart it.
#pragma once

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace baleen::internal {

// Called before the program stops; null: nothing. The log puts its last lines out here.
inline std::atomic<void (*)()> before_abort = nullptr;

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition,
                                     const char* why) {
  if (const auto last_words = before_abort.exchange(nullptr)) last_words();
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
