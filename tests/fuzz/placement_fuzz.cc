// Fuzz target: any bytes as a placement file. What is accepted must be safe to load experts by, and
// be written back as it was read.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "observability/base/check.h"
#include "tests/fuzz/fuzz_target.h"
#include "worker/group/rules/placement_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using baleen::worker::GroupPlacement;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<GroupPlacement> placement = baleen::worker::ParsePlacement("p.json", text);
  if (!placement.ok()) {
    BALEEN_CHECK(placement.status().message().size() < 1000, "an error is one short line");
    return 0;
  }
  BALEEN_CHECK(baleen::worker::CheckGroupPlacement(*placement).ok(), "it is within the limits");
  for (const baleen::worker::LayerPlacement& layer : placement->layers) {
    for (std::int32_t expert = 0; expert < placement->shape.experts; ++expert) {
      BALEEN_CHECK(!layer.SlotsOf(expert).empty(), "every expert has a slot");
    }
  }
  const absl::StatusOr<GroupPlacement> again =
      baleen::worker::ParsePlacement("p.json", baleen::worker::FormatPlacement(*placement));
  BALEEN_CHECK(again.ok() && again->layers == placement->layers, "it is written as it was read");
  return 0;
}
