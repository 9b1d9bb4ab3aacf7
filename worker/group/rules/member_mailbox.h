// What waits between a member's owner and its stream to the leader: events for the owner, messages
// for the leader. Holds the promises of GroupMember; knows neither gRPC nor time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/group/messages.h"

namespace baleen::worker {

// The leader has taken this rank.
struct Joined {
  GroupPlacement placement;
};
// All ranks are ready under the same placement.
struct Formed {
  std::uint64_t epoch = 0;
  std::uint64_t placement_version = 0;
  std::vector<std::string> endpoint_addresses;  // by rank
};
// The epoch is over. UNAVAILABLE: "group prefill-0: rank 2 has gone (its stream ended)".
struct Lost {
  std::uint64_t epoch = 0;
  absl::Status why;
};
// To be adopted between steps.
struct NewPlacement {
  GroupPlacement placement;
};
// This process can not be part of the group. FAILED_PRECONDITION, INVALID_ARGUMENT, or
// DEADLINE_EXCEEDED: names the difference, or the ranks that are missing.
struct Refused {
  absl::Status why;
};
using GroupEvent = std::variant<Joined, Formed, Lost, NewPlacement, Refused>;

// What a placement must be of to fit the member's model.
struct MemberShape {
  std::string group;
  std::int32_t ranks = 1;
  std::int32_t experts = 0;
  std::size_t moe_layers = 0;
};

// Thread-safe.
class MemberMailbox {
 public:
  // `wake` is called on any thread after an event has come; may be null.
  MemberMailbox(MemberShape shape, std::function<void()> wake);

  // The owner's side --------------------------------------------------------------------------

  // The next event; waits for it for at most `limit`.
  std::optional<GroupEvent> Next(absl::Duration limit);
  // Why the epoch that the owner is in is over, if Lost waits to be taken. Any thread.
  std::optional<absl::Status> WaitingLost() const;
  // Ready, Broken or Adopted; the newest of a kind. Dropped while there is no stream, and until the
  // owner has taken the Joined of the current one.
  void Say(MemberMessage message);
  // Adds to the next report. CHECKs the shape.
  void AddCounts(const ExpertCounts& counts);

  // The stream's side -------------------------------------------------------------------------

  void BeginStream();
  // A message of the leader; the first one is Welcome. An error ends the stream: the leader breaks
  // the rules, or (FAILED_PRECONDITION) its placement does not fit the model.
  absl::Status Take(LeaderMessage message);
  // The leader has taken this member; waits for it for at most `limit`. False also when the stream
  // ends first.
  bool AwaitWelcome(absl::Duration limit);
  // Waits for what the owner says, at most `limit`: then nothing. Nothing at once when the stream
  // has ended.
  std::optional<MemberMessage> AwaitSaid(absl::Duration limit);
  // Since the last call; nothing if there are none.
  std::optional<CountsMessage> TakeCounts();
  // No message comes or goes any more. The owner's epoch is over, because of `why`.
  void EndStream(const absl::Status& why);
  // The last event.
  void Refuse(absl::Status why);

  bool welcomed() const;     // by the current stream's leader
  bool stream_over() const;  // between EndStream and BeginStream
  std::uint64_t last_epoch() const;

 private:
  absl::Status CheckPlacement(const GroupPlacement& placement) const;
  absl::Status TakeLocked(LeaderMessage& message);
  void Notify();

  const MemberShape shape_;
  const std::function<void()> wake_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  std::deque<GroupEvent> events_;
  std::deque<MemberMessage> said_;
  ExpertCounts counts_;
  bool counted_ = false;
  bool streaming_ = false;          // between BeginStream and EndStream
  bool welcomed_ = false;           // on this stream
  bool joined_taken_ = false;       // the owner knows of this stream
  std::uint64_t stream_epoch_ = 0;  // formed on this stream and not lost
  std::uint64_t owner_epoch_ = 0;   // whose Formed the owner has taken, and whose Lost it has not
  std::uint64_t last_epoch_ = 0;
};

}  // namespace baleen::worker
