// One rank's membership of its group: joins at the leader, and joins again whenever the stream is
// lost, from threads of its own. Its owner sees events, and answers them:
//
//   Joined    load the placement if it is not the one that is loaded, make an endpoint; then Ready
//   Formed    connect the endpoint to the addresses, step
//   NewPlacement   adopt it between steps; then Adopted
//   Lost      abort the endpoint with the status, drop it, make a fresh one; then Ready
//   Refused   the last event: this process can not be part of the group
//
// For every Formed that the owner has taken there is exactly one Lost, whoever ended the epoch: a
// rank that is gone, a leader that is gone, or the owner itself by Broken. NewPlacement comes while
// the group is formed, or before (then it is loaded before Ready); Ready names the newest version.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "security/certificates/certificate_store.h"
#include "worker/attach/backoff.h"
#include "worker/group/messages.h"
#include "worker/group/rules/member_mailbox.h"

namespace baleen::worker {

struct GroupMemberOptions {
  std::string leader;                                        // host:port or unix-abstract:name
  std::shared_ptr<security::CertificateStore> certificates;  // of the inside; null: plaintext
  GroupTerms terms;
  std::uint32_t rank = 0;
  std::uint64_t incarnation = 0;  // random at each process start, not 0
  // Of the model: a Welcome must fit them.
  std::int32_t experts = 0;
  std::size_t moe_layers = 0;

  // Without a leader that takes this rank for so long: Refused. While the leader has it, the leader
  // bounds the wait for the others.
  absl::Duration join_max = absl::Minutes(10);
  absl::Duration welcome_wait = absl::Seconds(5);  // from Hello to Welcome
  absl::Duration counts_every = absl::Seconds(5);
  BackoffOptions backoff = {.first = absl::Milliseconds(20), .longest = absl::Seconds(1)};
  const Clock* clock = &SystemClock();  // of join_max
};

class MemberStream;

class GroupMember {
 public:
  // `wake` is called on any thread when there is an event; it must not block. May be null.
  explicit GroupMember(GroupMemberOptions options, std::function<void()> wake = nullptr);
  // Stops.
  ~GroupMember();

  // INVALID_ARGUMENT: CheckGroupTerms, or a rank out of range. Dials from a thread of its own. Call
  // once.
  absl::Status Start();

  // For a start in order: the first Joined. Its status is Refused's, or DEADLINE_EXCEEDED after
  // `limit`, with what was last in the way.
  absl::StatusOr<GroupPlacement> AwaitJoined(absl::Duration limit);
  // The next event; waits for it for at most `limit`, 0 = not at all.
  std::optional<GroupEvent> NextEvent(absl::Duration limit = absl::ZeroDuration());

  // For who is busy between events: why the epoch of the last Formed that was taken is over, if its
  // Lost is waiting. Any thread.
  std::optional<absl::Status> WaitingLost() const { return mailbox_.WaitingLost(); }

  // What the owner says. Never blocks. Dropped while there is no stream, and until the owner has
  // taken the Joined of the current one: it is asked again then.
  void Ready(std::uint64_t placement_version, std::string endpoint_address);
  void Broken(std::uint64_t epoch, const absl::Status& why);
  void Adopted(std::uint64_t placement_version);
  // Adds to what is sent with the next report. CHECKs that they are of the model's shape. Any
  // thread.
  void ReportCounts(const ExpertCounts& counts);

  // Ends the stream: for the others this rank is gone. Events that are left may be taken
  // after it; none come.
  void Stop();

 private:
  struct Ending;

  void Run(absl::Duration alone_since);
  Ending AttendOnce();
  bool Pause(absl::Duration wait);
  absl::Status WaitedInVain(const absl::Status& last) const;

  const GroupMemberOptions options_;
  MemberMailbox mailbox_;

  std::mutex mutex_;
  std::condition_variable stopped_;
  // Guarded by mutex_:
  std::shared_ptr<MemberStream> stream_;  // shared for the length of one call with Stop
  bool stopping_ = false;
  absl::Status last_failure_;  // to join
  absl::Duration failure_logged_at_ = -absl::InfiniteDuration();

  std::thread thread_;
};

}  // namespace baleen::worker
