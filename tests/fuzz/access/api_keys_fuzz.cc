// The file of API keys: whatever it holds, it is refused, or read and written as the same keys.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "observability/base/check.h"
#include "router/access/key_file.h"
#include "tests/fuzz/fuzz_target.h"

using baleen::router::FormatKeyFile;
using baleen::router::ParseKeyFile;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto entries = ParseKeyFile({reinterpret_cast<const char*>(data), size});
  if (!entries.ok()) {
    BALEEN_CHECK(!entries.status().message().empty(), "a refusal has a reason");
    return 0;
  }
  const std::string text = FormatKeyFile(*entries);
  const auto again = ParseKeyFile(text);
  BALEEN_CHECK(again.ok() && again->size() == entries->size(), "what is written can be read");
  BALEEN_CHECK(FormatKeyFile(*again) == text, "as the same keys");
  return 0;
}
