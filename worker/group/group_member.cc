#include "worker/group/group_member.h"

#include <fmt/format.h>

#include <utility>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "proto/contract/ids.h"
#include "worker/group/member_stream.h"

namespace baleen::worker {
namespace {

constexpr absl::Duration kFailureLogEvery = absl::Seconds(10);

// In [0, 1).
double RandomShare() { return static_cast<double>(contract::RandomNonZero() >> 11) * 0x1p-53; }

MemberShape ShapeOf(const GroupMemberOptions& options) {
  return {.group = options.terms.group,
          .ranks = static_cast<std::int32_t>(options.terms.ranks),
          .experts = options.experts,
          .moe_layers = options.moe_layers};
}

}  // namespace

struct GroupMember::Ending {
  absl::Status why;
  bool refused = false;
  bool joined = false;
};

GroupMember::GroupMember(GroupMemberOptions options, std::function<void()> wake)
    : options_(std::move(options)), mailbox_(ShapeOf(options_), std::move(wake)) {}

GroupMember::~GroupMember() { Stop(); }

absl::Status GroupMember::Start() {
  BALEEN_CHECK(!thread_.joinable(), "a member is started once");
  BALEEN_RETURN_IF_ERROR(CheckGroupTerms(options_.terms));
  if (options_.rank >= options_.terms.ranks) {
    return absl::InvalidArgumentError(fmt::format("group {}: there is no rank {}, only 0 to {}",
                                                  options_.terms.group, options_.rank,
                                                  options_.terms.ranks - 1));
  }
  thread_ = std::thread([this, now = options_.clock->Monotonic()] { Run(now); });
  return absl::OkStatus();
}

void GroupMember::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (stream_ != nullptr) stream_->Abort(absl::CancelledError("this rank stops"));
  }
  stopped_.notify_all();
  if (thread_.joinable()) thread_.join();
}

// The owner's side ------------------------------------------------------------------------------

absl::StatusOr<GroupPlacement> GroupMember::AwaitJoined(absl::Duration limit) {
  std::optional<GroupEvent> event = mailbox_.Next(limit);
  if (!event.has_value()) {
    const std::lock_guard lock(mutex_);
    return absl::DeadlineExceededError(fmt::format(
        "group {}: rank {} has not joined at {} within {}: {}", options_.terms.group, options_.rank,
        options_.leader, absl::FormatDuration(limit), last_failure_.ToString()));
  }
  if (auto* joined = std::get_if<Joined>(&*event)) return std::move(joined->placement);
  const auto* refused = std::get_if<Refused>(&*event);
  BALEEN_CHECK(refused != nullptr, "the first event is Joined or Refused");
  return refused->why;
}

std::optional<GroupEvent> GroupMember::NextEvent(absl::Duration limit) {
  return mailbox_.Next(limit);
}

void GroupMember::Ready(std::uint64_t placement_version, std::string endpoint_address) {
  mailbox_.Say(ReadyMessage{.placement_version = placement_version,
                            .endpoint_address = std::move(endpoint_address)});
}

void GroupMember::Broken(std::uint64_t epoch, const absl::Status& why) {
  mailbox_.Say(BrokenMessage{.epoch = epoch, .why = std::string(why.message())});
}

void GroupMember::Adopted(std::uint64_t placement_version) {
  mailbox_.Say(AdoptedMessage{.placement_version = placement_version});
}

void GroupMember::ReportCounts(const ExpertCounts& counts) { mailbox_.AddCounts(counts); }

// Dialling --------------------------------------------------------------------------------------

void GroupMember::Run(absl::Duration alone_since) {
  Backoff backoff(options_.backoff);
  do {
    const absl::Duration begun = options_.clock->Monotonic();
    const Ending ending = AttendOnce();
    const absl::Duration now = options_.clock->Monotonic();
    if (ending.joined) alone_since = now;
    // A stream that ends as soon as it has begun is no success: leader and rank may not agree.
    if (ending.joined && now - begun >= options_.backoff.longest) backoff.Reset();
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
    }
    if (ending.refused || now - alone_since >= options_.join_max) {
      absl::Status why = ending.refused ? ending.why : WaitedInVain(ending.why);
      log::Error("cannot be part of the group", {{"group", options_.terms.group},
                                                 {"rank", options_.rank},
                                                 {"why", std::string(why.message())}});
      mailbox_.Refuse(std::move(why));
      return;
    }
  } while (Pause(backoff.Next(RandomShare())));
}

// One stream from dialling to its end.
GroupMember::Ending GroupMember::AttendOnce() {
  const auto stream =
      std::make_shared<MemberStream>(MemberStreamOptions{.leader = options_.leader,
                                                         .certificates = options_.certificates,
                                                         .welcome_wait = options_.welcome_wait,
                                                         .counts_every = options_.counts_every},
                                     mailbox_);
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return {};
    stream_ = stream;
  }
  const MemberStream::Ending ending = stream->Attend({.terms = options_.terms,
                                                      .rank = options_.rank,
                                                      .incarnation = options_.incarnation,
                                                      .last_epoch = mailbox_.last_epoch()});
  const bool joined = mailbox_.welcomed();
  const absl::Status why =
      ending.why.ok() ? absl::UnavailableError("the leader ended the stream") : ending.why;
  bool changed = false;
  {
    const std::lock_guard lock(mutex_);
    stream_ = nullptr;
    const absl::Duration now = SystemClock().Monotonic();
    changed = joined || why != last_failure_ || now - failure_logged_at_ >= kFailureLogEvery;
    last_failure_ = why;
    if (changed) failure_logged_at_ = now;
  }
  // A line when something changes, and now and then, not one for each attempt.
  if (changed && !ending.refused) {
    const auto log_it = [&](auto log, const char* what) {
      log(what, {{"group", options_.terms.group},
                 {"leader", options_.leader},
                 {"status", why.ToString()}});
    };
    if (absl::IsCancelled(why)) {
      log_it(log::Info, "left the group");
    } else if (joined) {
      log_it(log::Warning, "stream to the group's leader lost");
    } else if (absl::IsUnavailable(why)) {  // as when a group starts, its leader last
      log_it(log::Info, "waiting for the group's leader");
    } else {
      log_it(log::Warning, "cannot join, will try again");
    }
  }
  return {.why = why, .refused = ending.refused, .joined = joined};
}

// False when the member stops.
bool GroupMember::Pause(absl::Duration wait) {
  std::unique_lock lock(mutex_);
  return !stopped_.wait_for(lock, absl::ToChronoMicroseconds(wait), [this] { return stopping_; });
}

absl::Status GroupMember::WaitedInVain(const absl::Status& last) const {
  return absl::DeadlineExceededError(fmt::format(
      "group {}: rank {} waited {} for the leader at {}: {}", options_.terms.group, options_.rank,
      absl::FormatDuration(options_.join_max), options_.leader, last.ToString()));
}

}  // namespace baleen::worker
