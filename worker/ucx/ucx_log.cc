#include "worker/ucx/ucx_log.h"

#include <fmt/format.h>
#include <ucs/debug/log_def.h>

#include <array>
#include <cstdarg>
#include <cstdio>
#include <mutex>
#include <string_view>

#include "observability/base/log.h"

namespace baleen::worker {
namespace {

log::Level LevelOf(ucs_log_level_t level) {
  if (level <= UCS_LOG_LEVEL_ERROR) return log::Level::kError;
  if (level == UCS_LOG_LEVEL_WARN) return log::Level::kWarning;
  if (level <= UCS_LOG_LEVEL_INFO) return log::Level::kInfo;
  return log::Level::kDebug;
}

// Longer messages are cut.
std::array<char, 1024> Print(const char* format, va_list arguments) {
  std::array<char, 1024> text;
  if (std::vsnprintf(text.data(), text.size(), format, arguments) < 0) text[0] = '\0';
  return text;
}

}  // namespace

void TakeUcxLog() {
  static std::once_flag taken;
  std::call_once(taken, [] {
    ucs_log_push_handler([](const char* file, unsigned line, const char* /*function*/,
                            ucs_log_level_t level, const ucs_log_component_config_t* /*component*/,
                            const char* format, va_list arguments) {
      const std::string_view path(file);
      log::Write(LevelOf(level), "UCX says",
                 {{"message", Print(format, arguments).data()},
                  {"source", fmt::format("{}:{}", path.substr(path.rfind('/') + 1), line)}});
      return UCS_LOG_FUNC_RC_STOP;
    });
  });
}

}  // namespace baleen::worker
