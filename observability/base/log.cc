#include "observability/base/log.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <iterator>
#include <memory>

namespace baleen::log {
namespace {

struct State {
  std::shared_ptr<spdlog::logger> logger;
  std::string process;
  Format format = Format::kText;
};

std::shared_ptr<spdlog::logger> MakeLogger() {
  auto logger =
      std::make_shared<spdlog::logger>("baleen", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->flush_on(spdlog::level::trace);  // a crash must not swallow the lines before it
  return logger;
}

State& TheState() {
  static State* state = [] {
    auto* s = new State{.logger = MakeLogger(), .process = "baleen"};
    s->logger->set_pattern("%H:%M:%S.%e %^%l%$ %v");
    return s;
  }();
  return *state;
}

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

}  // namespace

void Init(std::string_view process, Format format, Level threshold) {
  State& state = TheState();
  state.process = std::string(process);
  state.format = format;
  state.logger->set_level(ToSpdlog(threshold));
  if (format == Format::kJson) {
    state.logger->set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})");
  }
}

void Write(Level level, std::string_view event, std::initializer_list<Field> fields) {
  State& state = TheState();
  if (!state.logger->should_log(ToSpdlog(level))) return;
  std::string line;
  if (state.format == Format::kJson) {
    line = "\"process\":";
    AppendQuoted(state.process, line);
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
  state.logger->log(ToSpdlog(level), "{}", line);
}

}  // namespace baleen::log
