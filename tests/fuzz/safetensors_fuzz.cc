// Fuzz target: any bytes as a safetensors file. What is accepted must hold every promise of the
// header's table.
#include <cstddef>
#include <cstdint>
#include <span>

#include "observability/base/check.h"
#include "tests/fuzz/fuzz_target.h"
#include "worker/model/format/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  namespace worker = baleen::worker;
  const auto entries = worker::ParseSafetensorsHeader(std::as_bytes(std::span(data, size)), size);
  if (!entries.ok()) {
    BALEEN_CHECK(!entries.status().message().empty(), "an error says why");
    BALEEN_CHECK(entries.status().message().size() < 1000, "an error is one short line");
    return 0;
  }
  BALEEN_CHECK(entries->size() <= size, "a tensor takes bytes of header");
  std::uint64_t reached = entries->empty() ? size : entries->front().begin;
  for (const worker::TensorEntry& entry : *entries) {
    BALEEN_CHECK(entry.begin == reached && entry.end >= entry.begin, "tensors tile the data");
    BALEEN_CHECK(entry.shape.size() <= worker::kTensorRankMax, "rank is limited");
    __int128 bytes = static_cast<__int128>(worker::DTypeBytes(entry.dtype));
    for (const std::uint64_t dimension : entry.shape) {
      bytes *= dimension;
      BALEEN_CHECK(bytes <= UINT64_MAX, "no product on the way leaves 64 bits");
    }
    BALEEN_CHECK(bytes == static_cast<__int128>(entry.end - entry.begin), "shape fits the bytes");
    reached = entry.end;
  }
  BALEEN_CHECK(reached == size, "tensors end where the file ends");
  return 0;
}
