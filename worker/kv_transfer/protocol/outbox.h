// What the transfer state machines want done: frames to send, connections to close, events for the
// engine. And what they remember and count.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/kv_transfer/kv_transfer.h"

namespace baleen::worker {

struct SendFrame {
  std::string peer;
  std::string frame;  // encoded
};

// Close the connection to `peer` so that nothing reads or writes block memory any more, then go on
// with a new connection.
struct ClosePeer {
  std::string peer;
  absl::Status why;
};

using Action = std::variant<SendFrame, ClosePeer>;

// Frames that changed nothing, by reason. Each is either a fault of a peer, or an ordinary race
// with the end of a transfer.
struct DroppedFrames {
  std::uint64_t malformed = 0;    // does not parse
  std::uint64_t unknown = 0;      // no such transfer, or not in a state to take it
  std::uint64_t stale = 0;        // of a transfer that has ended or is being given up
  std::uint64_t duplicate = 0;    // said before
  std::uint64_t wrong_shape = 0;  // a block number or length outside the transfer
  bool operator==(const DroppedFrames&) const = default;
};

struct Outbox {
  std::vector<Action> actions;  // in order
  std::vector<TransferEvent> events;
  DroppedFrames dropped;
};

// The most recent ids that ended, so that late frames and late calls are told from new ones.
// Bounded: the oldest is forgotten.
class EndedTransfers {
 public:
  struct Ending {
    absl::Status status;
    bool begun_here = false;  // by a call of Expect or Send; false: only the peer spoke of it
  };

  explicit EndedTransfers(std::size_t remembered_max) : remembered_max_(remembered_max) {}

  void Remember(contract::TransferId id, Ending ending) {
    if (!endings_.insert_or_assign(id, std::move(ending)).second) return;
    order_.push_back(id);
    if (order_.size() > remembered_max_) {
      endings_.erase(order_.front());
      order_.pop_front();
    }
  }
  // Null when unknown.
  const Ending* Find(contract::TransferId id) const {
    const auto found = endings_.find(id);
    return found == endings_.end() ? nullptr : &found->second;
  }

 private:
  const std::size_t remembered_max_;
  std::unordered_map<contract::TransferId, Ending> endings_;
  std::deque<contract::TransferId> order_;
};

// Four times what can be alive at once: an id is forgotten long after the last frame about it.
inline std::size_t EndedRemembered(const TransferLimits& limits) {
  return std::size_t{4} * (limits.transfers_max + limits.offers_parked_max);
}

// How long a transfer that is being given up waits for its blocks in flight before their connection
// is closed.
inline absl::Duration CancelGrace(const TransferLimits& limits) {
  return std::min(limits.lease, absl::Seconds(1));
}

inline absl::Status LeaseRanOut(const TransferLimits& limits) {
  return absl::DeadlineExceededError(fmt::format("KV transfer: no progress for {}, the lease",
                                                 absl::FormatDuration(limits.lease)));
}

}  // namespace baleen::worker
