// NCCL and CUDA as NcclEndpoint sees them, over host memory: the ranks are threads of one process.
//
// As lazy as a device may be: rows are copied and bytes received no sooner than Exchange or Await
// need them, so that what is read too early is not there. As strict as a test may be: a message of
// another size or lane than the receiver expects, where NCCL would hang, is an error.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "worker/expert_parallel/all_to_all.h"
#include "worker/expert_parallel/nccl/collectives.h"

namespace baleen::worker {

// Outlives its ranks' collectives. Thread-safe.
class FakeNetwork {
 public:
  explicit FakeNetwork(std::int32_t ranks) : ranks_(ranks), pairs_(ranks * ranks) {}

  // Of one rank; what it points to must lie within [memory, memory + bytes).
  std::unique_ptr<Collectives> Join(std::int32_t rank, std::span<std::byte> memory);

  // What a rank has been asked for: "follow model", "gather 3 rows", "exchange", "scatter ...".
  std::vector<std::string> AskedOf(std::int32_t rank);
  // Waits until a rank's Await has come to a limit `times` times.
  void AwaitLimits(std::int32_t rank, int times);
  // As if the device of `source` sent.
  void Send(std::int32_t source, std::int32_t to, int lane, std::vector<std::byte> bytes);

 private:
  friend class FakeCollectives;
  struct Message {
    int lane = 0;
    std::vector<std::byte> bytes;
  };
  struct Log {
    std::vector<std::string> asked;
    int limits = 0;
  };

  const std::int32_t ranks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::deque<Message>> pairs_;  // [source][to]
  std::vector<Log> logs_ = std::vector<Log>(ranks_);
};

}  // namespace baleen::worker
