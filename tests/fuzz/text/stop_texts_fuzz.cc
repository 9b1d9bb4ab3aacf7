// Fuzz target: any stop texts and any text, in any pieces. What comes out is what a search of the
// whole text finds.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "observability/base/check.h"
#include "router/text/reply/stop_matcher.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using baleen::router::StopMatcher;
using baleen::router::StopTexts;

// The earliest end, and of texts with that end the longest.
std::string_view Expected(const std::vector<std::string>& stops, std::string_view text) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

}  // namespace

// 0xFF ends each stop text but the last field, which is the text; the first byte is the size of its
// pieces.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0 || size > 4096) return 0;
  std::string_view rest(reinterpret_cast<const char*>(data + 1), size - 1);
  std::vector<std::string> stops;
  for (std::size_t end; (end = rest.find('\xFF')) != std::string_view::npos;) {
    stops.emplace_back(rest.substr(0, end));
    rest.remove_prefix(end + 1);
  }
  const auto texts = StopTexts::Make(stops);
  if (!texts.ok()) return 0;
  StopMatcher matcher(*texts);
  std::string out;
  const std::size_t piece = 1 + data[0] % 64;
  for (std::size_t at = 0; at < rest.size(); at += piece) {
    const bool stopped = matcher.Push(rest.substr(at, piece), true, &out);
    BALEEN_CHECK(stopped == matcher.stopped(), "it says so when it stops");
  }
  matcher.Finish(&out);
  const std::string_view expected = Expected(stops, rest);
  BALEEN_CHECK(out == expected, "the search of the whole");
  BALEEN_CHECK(matcher.stopped() || expected.size() == rest.size(), "all of it, if it goes on");
  return 0;
}
