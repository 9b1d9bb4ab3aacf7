// A rank in a process of its own, for tests that stop or kill it. It obeys lines on standard input
// and answers on standard output:
//   -> address HEX                      once, when it can be reached
//   <- expect ID BLOCKS
//   <- send ID PEER_HEX FIRST END       sends blocks FIRST .. END-1
//   <- close ID PEER_HEX BLOCKS
//   -> event ID received|handed_over|failed CODE intact|damaged
// Blocks of transfer ID hold the pattern of BlockMemory(..., seed = ID). Ends with its standard
// input.
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>
#include <string>

#include "absl/strings/escaping.h"
#include "observability/base/check.h"
#include "tests/worker/kv_transfer/conformance.h"
#include "tests/worker/kv_transfer/peer_process.h"
#include "worker/kv_transfer/ucx_kv_transfer.h"

namespace baleen::worker {
namespace {

class Peer {
 public:
  Peer() : wake_(eventfd(0, EFD_NONBLOCK)) {
    auto transfer = UcxKvTransfer::Create({.limits = PeerLimits(), .wake = [this] {
                                             const std::uint64_t one = 1;
                                             BALEEN_CHECK(write(wake_, &one, 8) == 8, "wake");
                                           }});
    BALEEN_CHECK(transfer.ok(), "UCX starts");
    transfer_ = *std::move(transfer);
    Say("address " + absl::BytesToHexString(transfer_->LocalAddress()));
  }

  void Run() {
    std::string input;
    for (;;) {
      pollfd waiting[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = wake_, .events = POLLIN}};
      BALEEN_CHECK(poll(waiting, 2, -1) > 0 || errno == EINTR, "poll");
      Report();
      if (waiting[0].revents == 0) continue;
      char buffer[4096];
      const ssize_t size = read(STDIN_FILENO, buffer, sizeof(buffer));
      if (size <= 0) return;
      input.append(buffer, static_cast<std::size_t>(size));
      for (std::size_t end; (end = input.find('\n')) != std::string::npos;) {
        Obey(input.substr(0, end));
        input.erase(0, end + 1);
      }
    }
  }

 private:
  static void Say(const std::string& line) { std::cout << line << std::endl; }

  BlockMemory& MemoryOf(std::uint64_t id, std::size_t blocks, std::uint64_t seed) {
    return memory_.try_emplace(id, blocks, kPeerBlockBytes, seed).first->second;
  }

  void Obey(const std::string& line) {
    std::istringstream words(line);
    std::string verb;
    std::uint64_t id = 0;
    std::string peer;
    std::uint32_t first = 0;
    std::uint32_t end = 0;
    words >> verb >> id;
    absl::Status status;
    if (verb == "expect") {
      words >> end;
      status = transfer_->Expect({id}, MemoryOf(id, end, 0).Blocks());
    } else if (verb == "send") {
      words >> peer >> first >> end;
      for (std::uint32_t number = first; number < end && status.ok(); number++) {
        status = transfer_->Send({.id = {id},
                                  .peer_address = absl::HexStringToBytes(peer),
                                  .block_number = number,
                                  .block = MemoryOf(id, kPeerBlocks, id).Block(number)});
      }
    } else if (verb == "close") {
      words >> peer >> end;
      status = transfer_->Send({.id = {id},
                                .peer_address = absl::HexStringToBytes(peer),
                                .last = true,
                                .blocks_total = end});
    }
    if (!status.ok()) Say("error " + status.ToString());
  }

  void Report() {
    std::uint64_t wakes = 0;
    (void)!read(wake_, &wakes, 8);
    for (const TransferEvent& event : transfer_->Poll()) {
      const std::uint64_t id = event.id.value;
      const bool received = event.kind == TransferEventKind::kReceived;
      const char* kind = received                                       ? "received"
                         : event.kind == TransferEventKind::kHandedOver ? "handed_over"
                                                                        : "failed";
      const BlockMemory& memory = memory_.at(id);
      const bool intact = !received || memory == BlockMemory(memory.blocks(), kPeerBlockBytes, id);
      Say("event " + std::to_string(id) + " " + kind + " " +
          absl::StatusCodeToString(event.status.code()) + (intact ? " intact" : " damaged"));
    }
  }

  const int wake_;
  std::map<std::uint64_t, BlockMemory> memory_;  // outlives the endpoint
  std::unique_ptr<UcxKvTransfer> transfer_;
};

}  // namespace
}  // namespace baleen::worker

int main() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  baleen::worker::Peer().Run();
  return 0;
}
