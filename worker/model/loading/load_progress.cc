#include "worker/model/loading/load_progress.h"

#include <unistd.h>

#include <algorithm>
#include <memory>

#include "fmt/format.h"
#include "observability/base/log.h"

namespace baleen::worker {
namespace {

constexpr std::uint64_t kBarColumns = 30;

std::string Size(double bytes) {
  for (const char* unit : {"B", "kB", "MB"}) {
    if (bytes < 999.5) return fmt::format("{:.{}f} {}", bytes, bytes < 9.95 ? 1 : 0, unit);
    bytes /= 1000;
  }
  return fmt::format("{:.1f} GB", bytes);
}

std::string Time(double seconds) {
  return seconds < 9.95   ? fmt::format("{:.1f} s", seconds)
         : seconds < 90.0 ? fmt::format("{:.0f} s", seconds)
                          : fmt::format("{:.0f} min", seconds / 60);
}

}  // namespace

bool LoadProgress::Due(std::uint64_t percent, absl::Duration now) const {
  if (form_ == Form::kBar) return now - shown_at_ >= absl::Milliseconds(100);
  const absl::Duration quiet = now - std::max(shown_at_, start_);
  return quiet >= absl::Seconds(5) ||
         (quiet >= absl::Seconds(1) && percent / 10 > shown_percent_ / 10);
}

std::string LoadProgress::Update(std::uint64_t done, std::uint64_t total, absl::Duration now) {
  const double share = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  const auto percent = static_cast<std::uint64_t>(share * 100);
  const bool ends = done >= total;
  if (!ends && !Due(percent, now)) return "";
  shown_at_ = now;
  shown_percent_ = percent;

  const double seconds = std::max(absl::ToDoubleSeconds(now - start_), 1e-3);
  const double rate = static_cast<double>(done) / seconds;
  std::string text = ends ? fmt::format("{} in {}", Size(static_cast<double>(total)), Time(seconds))
                          : fmt::format("{} of {}, {}/s", Size(static_cast<double>(done)),
                                        Size(static_cast<double>(total)), Size(rate));
  if (!ends && done > 0) {
    text += fmt::format(", {} left", Time(static_cast<double>(total - done) / rate));
  }
  if (form_ == Form::kLines) return fmt::format("{} %, {}", percent, text);
  const std::uint64_t filled = percent * kBarColumns / 100;
  return fmt::format("\r\x1b[Kloading weights [{:#>{}}{:.>{}}] {:3} %  {}{}", "", filled, "",
                     kBarColumns - filled, percent, text, ends ? "\n" : "");
}

std::function<void(std::uint64_t done, std::uint64_t total)> ShowLoadProgress(const Clock& clock) {
  const bool terminal = isatty(STDERR_FILENO) == 1;
  const auto progress = std::make_shared<LoadProgress>(
      terminal ? LoadProgress::Form::kBar : LoadProgress::Form::kLines, clock.Monotonic());
  return [&clock, terminal, progress](std::uint64_t done, std::uint64_t total) {
    const std::string text = progress->Update(done, total, clock.Monotonic());
    if (text.empty()) return;
    if (terminal) {
      // A picture for a person: where it cannot be drawn, nothing is lost.
      [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
    } else {
      log::Info("loading weights", {{"progress", text}});
    }
  };
}

}  // namespace baleen::worker
