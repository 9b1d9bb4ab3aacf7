// Structured logs: one JSON object a line on stderr, or plain text for a person at a terminal.
//
// A log line is an event name and fields. There is deliberately no call that takes prompt or
// completion text: log counts, ids and reasons only.
//
// Lines are written by a thread of the log's own, from a bounded queue: whoever logs never waits
// for stderr. While stderr stalls, the oldest lines are dropped; the next line that gets out is
// preceded by "log lines dropped" with their number. Nothing is buffered beyond the queue. What
// waits in it is written when the process ends by exit or by BALEEN_CHECK, within a second; a fatal
// signal loses it.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

#include "absl/time/time.h"

namespace baleen::log {

enum class Level { kDebug, kInfo, kWarning, kError };
enum class Format { kJson, kText };

// One key and its value, for example {"port", 8080}.
struct Field {
  using Value = std::variant<std::int64_t, std::uint64_t, double, bool, std::string>;

  template <typename T>
  Field(std::string_view field_key, const T& field_value)
      : key(field_key), value(Convert(field_value)) {}

  std::string_view key;
  Value value;

 private:
  template <typename T>
  static Value Convert(const T& v) {
    if constexpr (std::is_same_v<T, bool>) {
      return v;
    } else if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
      return static_cast<std::int64_t>(v);
    } else if constexpr (std::is_integral_v<T>) {
      return static_cast<std::uint64_t>(v);
    } else if constexpr (std::is_floating_point_v<T>) {
      return static_cast<double>(v);
    } else {
      return std::string(std::string_view(v));
    }
  }
};

// Sets process name, format and threshold, and starts the log's thread. Call in main before any
// other thread starts. Before it, lines are text from kInfo on, and are written by the caller.
void Init(std::string_view process, Format format, Level threshold);

// Thread-safe. `event` is a short constant phrase such as "worker attached".
void Write(Level level, std::string_view event, std::initializer_list<Field> fields = {});

// Waits until every line logged before has been written or dropped. False: not within `limit`.
bool Flush(absl::Duration limit = absl::Seconds(1));

inline void Info(std::string_view event, std::initializer_list<Field> fields = {}) {
  Write(Level::kInfo, event, fields);
}
inline void Warning(std::string_view event, std::initializer_list<Field> fields = {}) {
  Write(Level::kWarning, event, fields);
}
inline void Error(std::string_view event, std::initializer_list<Field> fields = {}) {
  Write(Level::kError, event, fields);
}
inline void Debug(std::string_view event, std::initializer_list<Field> fields = {}) {
  Write(Level::kDebug, event, fields);
}

}  // namespace baleen::log
