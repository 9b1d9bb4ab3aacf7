// Starts, commands, stops and kills a kv_transfer_peer process.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "worker/kv_transfer/kv_transfer.h"

namespace baleen::worker {

inline constexpr std::size_t kPeerBlockBytes = std::size_t{1} << 20;
inline constexpr std::size_t kPeerBlocks = 64;

inline TransferLimits PeerLimits() {
  return {.block_bytes = kPeerBlockBytes, .lease = absl::Seconds(30)};
}

class PeerProcess {
 public:
  PeerProcess();
  // Kills the process.
  ~PeerProcess();
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

  const std::string& address() const { return address_; }

  void Expect(contract::TransferId id, std::size_t blocks);
  void Send(contract::TransferId id, const std::string& peer, std::size_t first, std::size_t end);
  void Close(contract::TransferId id, const std::string& peer, std::size_t blocks);

  // The next line that begins with `prefix`, without it; others before it are skipped. Waits ten
  // seconds at most.
  std::string Await(const std::string& prefix);
  // As above for the event of `id`: "received OK intact".
  std::string AwaitEvent(contract::TransferId id);

  void Stop();      // SIGSTOP, and waits until it has stopped
  void Continue();  // SIGCONT
  void Kill();      // SIGKILL, and reaps it

 private:
  void Tell(const std::string& line);

  pid_t pid_ = -1;
  int to_ = -1;
  int from_ = -1;
  std::string heard_;
  std::string address_;
};

}  // namespace baleen::worker
