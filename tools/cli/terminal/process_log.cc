#include "tools/cli/terminal/process_log.h"

#include <fmt/format.h>

namespace baleen::cli {

std::string FormatLogLine(std::string_view process, std::string_view line, std::size_t width,
                          const Style& style) {
  const std::string prefix = fmt::format("{:<{}} | ", process, width);
  return fmt::format("{}{}\n", style.Paint(LookOf(process), prefix), WithoutControls(line));
}

}  // namespace baleen::cli
