// Fuzz target: any bytes as a frame of KV transfer. What is accepted is written back to the same
// bytes, and a table of transfers that hears it stays in order. The frame's checksum is added here,
// so that mutations get past it.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "observability/base/check.h"
#include "tests/fuzz/fuzz_target.h"
#include "worker/kv_transfer/protocol/checksum.h"
#include "worker/kv_transfer/protocol/frames.h"
#include "worker/kv_transfer/protocol/transfer_table.h"

namespace baleen::worker {
namespace {

constexpr std::size_t kBlockBytes = 64;
constexpr contract::TransferId kId{7};  // the one that the corpus speaks of

std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

void CheckDecode(const std::string& bytes) {
  const auto frame = DecodeFrame(BytesOf(bytes));
  if (frame.ok()) {
    BALEEN_CHECK(EncodeFrame(*frame) == bytes, "one frame has one encoding");
  } else {
    BALEEN_CHECK(frame.status().message().size() < 200, "an error is one short line");
  }
}

// A rank that both expects and sends `kId`, and hears `frame` three times.
void CheckTable(const std::string& frame) {
  std::vector<std::byte> memory(4 * kBlockBytes);
  std::vector<std::span<std::byte>> blocks;
  for (std::size_t i = 0; i < 4; i++) {
    blocks.push_back(std::span(memory).subspan(i * kBlockBytes, kBlockBytes));
  }
  absl::Duration now = absl::Seconds(1);
  TransferTable table({.block_bytes = kBlockBytes}, "self");
  BALEEN_CHECK(table.Expect(kId, blocks, now).ok(), "an empty table has room");
  const SendPart part{.id = kId, .peer_address = "peer", .block = blocks[0]};
  BALEEN_CHECK(table.Send(part, now).ok(), "an empty table has room");
  std::size_t events = 0;
  for (int i = 0; i < 3; i++) {
    table.OnFrame(BytesOf(frame), now);
    if (const auto block = table.BeginBlock(BytesOf(frame), kBlockBytes)) {
      BALEEN_CHECK(block->memory.size() == kBlockBytes, "a block goes where it was expected");
      table.EndBlock(block->header, absl::OkStatus(), block->header.checksum, now);
    }
    while (const auto block = table.NextBlock()) table.OnBlockSent(*block, {}, 1, now);
    events += table.TakeEvents().size();
    BALEEN_CHECK(table.TakeActions().size() <= 4, "an answer is no flood");
  }
  now += absl::Hours(1);
  table.OnTick(now);
  events += table.TakeEvents().size();
  BALEEN_CHECK(events == 2 && table.size() == 0, "each transfer ends once");
}

}  // namespace
}  // namespace baleen::worker

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  namespace worker = baleen::worker;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  worker::CheckDecode(bytes);
  const std::uint64_t checksum = worker::Checksum(worker::BytesOf(bytes));
  bytes.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  worker::CheckDecode(bytes);
  worker::CheckTable(bytes);
  return 0;
}
