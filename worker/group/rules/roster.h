// Who is in a group: the leader's state, without threads, wire or clock. What comes from members
// goes in with the time; what members are to be told comes out of Take.
//
// The group forms when every rank has joined and is ready under the current placement: the epoch
// grows, and every member hears Formed. It ends when a member leaves or its endpoint breaks: every
// other member (the one whose endpoint broke included) hears Lost, once.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/group/messages.h"

namespace baleen::worker {

struct RosterOptions {
  // Facts of rank 0, which is in the leader's process; the others must have the same.
  GroupTerms terms;
  // The first epoch, and the first version of the placement: larger than those of the leader's
  // process before, so a wall clock's microseconds. At least 1.
  std::uint64_t first_number = 1;
  // From the start, or the end of an epoch, until all ranks are ready again.
  absl::Duration join_max = absl::Minutes(10);
  absl::Duration heartbeat = absl::Milliseconds(500);
  // A member that says nothing for so long is lost.
  absl::Duration silence_max = absl::Seconds(5);
  // How often the balance is looked at; 0 = never.
  absl::Duration rebalance_every = absl::ZeroDuration();
  // How often the log says who is missing.
  absl::Duration missing_log_every = absl::Seconds(10);
};

// One stream of one member, as the edge numbers them: never used twice.
struct MemberStreamId {
  std::uint64_t value = 0;
  auto operator<=>(const MemberStreamId&) const = default;
};

// What the edge is to do, in order. Messages to several members are shared.
struct RosterOutput {
  MemberStreamId stream;
  // A message to send; or the status with which the stream ends, after what was sent before.
  std::variant<std::shared_ptr<const LeaderMessage>, absl::Status> what;
};

// Not thread-safe.
class Roster {
 public:
  // `layers` of `shape` at the start. CHECKs CheckGroupTerms and CheckGroupPlacement, and that
  // shape.ranks are terms.ranks.
  Roster(RosterOptions options, const PlacementShape& shape, std::vector<LayerPlacement> layers,
         absl::Duration now);

  // A message of a stream that has not ended; the first one is Hello. An error is the status with
  // which the edge ends the stream; the roster has forgotten it then.
  absl::Status Hear(MemberStreamId stream, const MemberMessage& message, absl::Duration now);

  // The stream has ended; no effect for one that the roster does not know or has ended.
  void Leave(MemberStreamId stream, const std::string& why, absl::Duration now);

  // What time brings: silent members, a group that does not form, heartbeats, a new balance. At
  // least a few times in a heartbeat.
  void Tick(absl::Duration now);

  // A new placement, told to all members. FAILED_PRECONDITION: the group is not formed, or has not
  // adopted the placement before yet; INVALID_ARGUMENT: not of the shape. Its version.
  absl::StatusOr<std::uint64_t> Place(std::vector<std::vector<std::int32_t>> layers);

  // What is to be done since the last call.
  std::vector<RosterOutput> Take();

  GroupView View() const;
  std::uint64_t epoch() const { return epoch_; }  // 0 = not formed

 private:
  struct Member {
    MemberStreamId stream;
    std::uint64_t incarnation = 0;
    absl::Duration heard_at;
    std::uint64_t placement_version = 0;
    std::optional<std::string> endpoint_address;  // ready, until the end of the next epoch
  };

  absl::Status Join(MemberStreamId stream, const HelloMessage& hello, absl::Duration now);
  absl::Status HearMember(std::uint32_t rank, const MemberMessage& message, absl::Duration now);
  absl::Status HearReady(std::uint32_t rank, const ReadyMessage& ready, absl::Duration now);
  absl::Status HearCounts(const CountsMessage& counts);

  std::optional<std::uint32_t> RankOf(MemberStreamId stream) const;
  bool IsReady(const Member& member) const;
  bool AllAdopted() const;
  void FormIfReady(absl::Duration now);
  void EndEpoch(std::uint32_t rank, const std::string& why, absl::Duration now);
  void PauseAfterBreak(absl::Duration now);
  void Remove(std::uint32_t rank, const std::string& why, absl::Duration now);
  void GiveUpWaiting(absl::Duration now);
  void Rebalance(absl::Duration now);
  std::uint64_t Publish(std::vector<LayerPlacement> layers);
  std::string Missing() const;
  void Tell(MemberStreamId stream, std::shared_ptr<const LeaderMessage> message);
  void TellAll(LeaderMessage message);

  const RosterOptions options_;
  GroupPlacement placement_;
  std::vector<std::optional<Member>> members_;  // by rank
  std::uint64_t epoch_ = 0;
  std::uint64_t next_epoch_;
  absl::Duration formed_at_;  // the current or last epoch
  absl::Duration form_not_before_;
  int breaks_ = 0;                // in a row, soon after the group had formed
  std::string last_refusal_;      // as logged
  absl::Duration waiting_since_;  // for the group to form
  absl::Duration missing_logged_at_;
  absl::Duration heartbeat_at_;
  absl::Duration rebalanced_at_;
  ExpertCounts counts_;
  std::vector<RosterOutput> outputs_;
};

}  // namespace baleen::worker
