#include "observability/base/log.h"

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <spdlog/async_logger.h>
#include <spdlog/details/thread_pool.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>

#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <memory>
#include <mutex>

#include "observability/base/check.h"

namespace baleen::log {
namespace {

// Lines that wait for stderr: of some hundred bytes each, at most about 2 MB.
constexpr std::size_t kQueueLines = 4096;

spdlog::level::level_enum ToSpdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

void AppendQuoted(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  out += '"';
}

void AppendValue(const Field::Value& value, std::string& out) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    AppendQuoted(*text, out);
  } else if (const auto* number = std::get_if<double>(&value)) {
    // JSON has no NaN or infinity.
    out += std::isfinite(*number) ? fmt::format("{}", *number) : "null";
  } else if (const auto* flag = std::get_if<bool>(&value)) {
    out += *flag ? "true" : "false";
  } else if (const auto* signed_number = std::get_if<std::int64_t>(&value)) {
    out += std::to_string(*signed_number);
  } else {
    out += std::to_string(std::get<std::uint64_t>(value));
  }
}

struct Style {
  std::string process = "baleen";
  Format format = Format::kText;
};

std::string Compose(const Style& style, std::string_view event,
                    std::initializer_list<Field> fields) {
  std::string line;
  if (style.format == Format::kJson) {
    line = "\"process\":";
    AppendQuoted(style.process, line);
    line += ",\"event\":";
    AppendQuoted(event, line);
    for (const Field& field : fields) {
      line += ',';
      AppendQuoted(field.key, line);
      line += ':';
      AppendValue(field.value, line);
    }
  } else {
    line = std::string(event);
    for (const Field& field : fields) {
      line += fmt::format(" {}=", field.key);
      AppendValue(field.value, line);
    }
  }
  return line;
}

// Writes line by line, and tells how many lines the queue before it has dropped.
class StderrSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit StderrSink(const Style& style) : style_(style) {}

  // Once, before the first line comes out of `queue`.
  void ReadFrom(spdlog::details::thread_pool& queue) { queue_ = &queue; }

  // A line is about to be logged.
  void CountLine() {
    const std::lock_guard lock(count_mutex_);
    ++logged_;
  }

  bool AwaitLines(absl::Duration limit) {
    std::unique_lock lock(count_mutex_);
    const std::uint64_t goal = logged_;
    return counted_.wait_for(lock, absl::ToChronoMilliseconds(limit),
                             [&] { return written_ + Dropped() >= goal; });
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (const std::uint64_t dropped = Dropped(); dropped != dropped_told_) {
      const std::string line =
          Compose(style_, "log lines dropped", {{"lines", dropped - dropped_told_}});
      Put(spdlog::details::log_msg(message.logger_name, spdlog::level::warn, line));
      dropped_told_ = dropped;
    }
    Put(message);
    {
      const std::lock_guard lock(count_mutex_);
      ++written_;
    }
    counted_.notify_all();
  }
  void flush_() override {}  // stderr has no buffer

 private:
  void Put(const spdlog::details::log_msg& message) {
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    std::fwrite(text.data(), 1, text.size(), stderr);
  }
  std::uint64_t Dropped() const { return queue_ == nullptr ? 0 : queue_->overrun_counter(); }

  const Style& style_;
  spdlog::details::thread_pool* queue_ = nullptr;
  std::uint64_t dropped_told_ = 0;  // by the writing thread only

  std::mutex count_mutex_;
  std::condition_variable counted_;
  // Guarded by count_mutex_:
  std::uint64_t logged_ = 0;
  std::uint64_t written_ = 0;
};

// Never destroyed: threads that outlive main may log, and the log's thread is not waited for.
struct State {
  Style style;
  std::shared_ptr<StderrSink> sink;
  std::shared_ptr<spdlog::logger> logger;
  std::shared_ptr<spdlog::details::thread_pool> queue;  // null until Init
};

State& TheState() {
  static State* state = [] {
    auto* s = new State;
    s->sink = std::make_shared<StderrSink>(s->style);
    s->logger = std::make_shared<spdlog::logger>("baleen", s->sink);
    s->logger->set_pattern("%H:%M:%S.%e %^%l%$ %v");
    return s;
  }();
  return *state;
}

// The thread of the queue takes no signals: they are for the threads that wait for them.
std::shared_ptr<spdlog::details::thread_pool> StartQueue() {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::shared_ptr<spdlog::details::thread_pool> queue;
  try {
    queue = std::make_shared<spdlog::details::thread_pool>(kQueueLines, 1);
  } catch (const std::exception&) {
    // No thread to be had: lines are written by their callers.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return queue;
}

void FlushAtEnd() { Flush(); }

void StartAsync(State& state) {
  state.queue = StartQueue();
  if (state.queue == nullptr) return;
  state.sink->ReadFrom(*state.queue);
  state.logger = std::make_shared<spdlog::async_logger>(
      "baleen", state.sink, state.queue, spdlog::async_overflow_policy::overrun_oldest);
  std::atexit(FlushAtEnd);
  internal::before_abort = FlushAtEnd;
}

}  // namespace

void Init(std::string_view process, Format format, Level threshold) {
  State& state = TheState();
  state.style = {.process = std::string(process), .format = format};
  if (state.queue == nullptr) StartAsync(state);
  state.logger->set_level(ToSpdlog(threshold));
  if (format == Format::kJson) {
    state.logger->set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})");
  }
}

void Write(Level level, std::string_view event, std::initializer_list<Field> fields) {
  State& state = TheState();
  if (!state.logger->should_log(ToSpdlog(level))) return;
  const std::string line = Compose(state.style, event, fields);
  state.sink->CountLine();
  state.logger->log(ToSpdlog(level), "{}", line);
}

bool Flush(absl::Duration limit) { return TheState().sink->AwaitLines(limit); }

}  // namespace baleen::log
