#include "worker/group/rules/member_mailbox.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

// Events of one stream that an owner has not taken. In order there are at most a handful: the
// leader waits for answers. More is a leader gone wild.
constexpr std::size_t kEventsMax = 64;

// A wait that the clock can add to now.
std::chrono::nanoseconds Bounded(absl::Duration limit) {
  return absl::ToChronoNanoseconds(std::min(limit, absl::Hours(24)));
}

absl::Status BreaksRules(const std::string& how) {
  return absl::InternalError(fmt::format("the leader breaks the rules: {}", how));
}

}  // namespace

MemberMailbox::MemberMailbox(MemberShape shape, std::function<void()> wake)
    : shape_(std::move(shape)),
      wake_(std::move(wake)),
      counts_(shape_.moe_layers, std::vector<std::uint64_t>(shape_.experts, 0)) {}

// Without the lock.
void MemberMailbox::Notify() {
  changed_.notify_all();
  if (wake_ != nullptr) wake_();
}

// The owner's side ------------------------------------------------------------------------------

std::optional<GroupEvent> MemberMailbox::Next(absl::Duration limit) {
  std::unique_lock lock(mutex_);
  const bool some = changed_.wait_for(lock, Bounded(limit), [this] { return !events_.empty(); });
  if (!some) return std::nullopt;
  GroupEvent event = std::move(events_.front());
  events_.pop_front();
  if (std::holds_alternative<Joined>(event)) joined_taken_ = true;
  if (const auto* formed = std::get_if<Formed>(&event)) owner_epoch_ = formed->epoch;
  if (std::holds_alternative<Lost>(event)) owner_epoch_ = 0;
  return event;
}

void MemberMailbox::Say(MemberMessage message) {
  {
    const std::lock_guard lock(mutex_);
    if (!joined_taken_) return;
    std::erase_if(said_,
                  [&](const MemberMessage& other) { return other.index() == message.index(); });
    said_.push_back(std::move(message));
  }
  changed_.notify_all();
}

std::optional<absl::Status> MemberMailbox::WaitingLost() const {
  const std::lock_guard lock(mutex_);
  for (const GroupEvent& event : events_) {
    const auto* lost = std::get_if<Lost>(&event);
    if (lost != nullptr && lost->epoch == owner_epoch_) return lost->why;
  }
  return std::nullopt;
}

void MemberMailbox::AddCounts(const ExpertCounts& counts) {
  const std::lock_guard lock(mutex_);
  BALEEN_CHECK(counts.size() == counts_.size(), "counts for each MoE layer");
  for (std::size_t layer = 0; layer < counts.size(); ++layer) {
    BALEEN_CHECK(counts[layer].size() == counts_[layer].size(), "a count for each expert");
    for (std::size_t expert = 0; expert < counts[layer].size(); ++expert) {
      std::uint64_t& sum = counts_[layer][expert];
      sum = std::min(sum + std::min(counts[layer][expert], kExpertTokensMax), kExpertTokensMax);
    }
  }
  counted_ = true;
}

// The stream's side -----------------------------------------------------------------------------

void MemberMailbox::BeginStream() {
  const std::lock_guard lock(mutex_);
  BALEEN_CHECK(!streaming_, "one stream at a time");
  streaming_ = true;
  welcomed_ = false;
}

absl::Status MemberMailbox::Take(LeaderMessage message) {
  {
    const std::lock_guard lock(mutex_);
    if (!streaming_) return absl::CancelledError("the stream has ended");
    const std::size_t before = events_.size();
    BALEEN_RETURN_IF_ERROR(TakeLocked(message));
    if (events_.size() == before) return absl::OkStatus();
    if (events_.size() > kEventsMax) return BreaksRules("too many messages");
  }
  Notify();
  return absl::OkStatus();
}

absl::Status MemberMailbox::TakeLocked(LeaderMessage& message) {
  if (auto* welcome = std::get_if<WelcomeMessage>(&message)) {
    if (welcomed_) return BreaksRules("a second Welcome");
    BALEEN_RETURN_IF_ERROR(CheckPlacement(welcome->placement));
    welcomed_ = true;
    events_.push_back(Joined{.placement = std::move(welcome->placement)});
    return absl::OkStatus();
  }
  if (!welcomed_) return BreaksRules("its first message is not Welcome");
  if (auto* formed = std::get_if<FormedMessage>(&message)) {
    if (stream_epoch_ != 0) return BreaksRules("Formed in an epoch");
    if (formed->epoch <= last_epoch_) return BreaksRules("an epoch that is not new");
    if (formed->endpoint_addresses.size() != static_cast<std::size_t>(shape_.ranks)) {
      return BreaksRules(fmt::format("Formed with {} addresses for {} ranks",
                                     formed->endpoint_addresses.size(), shape_.ranks));
    }
    stream_epoch_ = last_epoch_ = formed->epoch;
    events_.push_back(Formed{.epoch = formed->epoch,
                             .placement_version = formed->placement_version,
                             .endpoint_addresses = std::move(formed->endpoint_addresses)});
  } else if (auto* lost = std::get_if<LostMessage>(&message)) {
    if (stream_epoch_ == 0 || lost->epoch != stream_epoch_) {
      return BreaksRules("Lost of another epoch");
    }
    stream_epoch_ = 0;
    events_.push_back(
        Lost{.epoch = lost->epoch, .why = absl::UnavailableError(std::move(lost->why))});
  } else if (auto* place = std::get_if<PlaceMessage>(&message)) {
    BALEEN_RETURN_IF_ERROR(CheckPlacement(place->placement));
    events_.push_back(NewPlacement{.placement = std::move(place->placement)});
  }
  return absl::OkStatus();
}

absl::Status MemberMailbox::CheckPlacement(const GroupPlacement& placement) const {
  if (placement.shape.experts == shape_.experts && placement.shape.ranks == shape_.ranks &&
      placement.layers.size() == shape_.moe_layers) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(fmt::format(
      "group {}: the leader places {} layers of {} experts on {} ranks, this rank has {} layers of "
      "{} experts for {} ranks",
      shape_.group, placement.layers.size(), placement.shape.experts, placement.shape.ranks,
      shape_.moe_layers, shape_.experts, shape_.ranks));
}

bool MemberMailbox::AwaitWelcome(absl::Duration limit) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, Bounded(limit), [this] { return welcomed_ || !streaming_; });
  return welcomed_ && streaming_;
}

std::optional<MemberMessage> MemberMailbox::AwaitSaid(absl::Duration limit) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, Bounded(limit), [this] { return !said_.empty() || !streaming_; });
  if (said_.empty() || !streaming_) return std::nullopt;
  MemberMessage message = std::move(said_.front());
  said_.pop_front();
  return message;
}

std::optional<CountsMessage> MemberMailbox::TakeCounts() {
  const std::lock_guard lock(mutex_);
  if (!counted_) return std::nullopt;
  CountsMessage message{.counts = counts_};
  for (std::vector<std::uint64_t>& layer : counts_) std::ranges::fill(layer, 0);
  counted_ = false;
  return message;
}

void MemberMailbox::EndStream(const absl::Status& why) {
  {
    const std::lock_guard lock(mutex_);
    if (!streaming_) return;
    streaming_ = false;
    joined_taken_ = false;
    stream_epoch_ = 0;
    said_.clear();
    // What the owner has not seen of this stream means nothing any more, but that its epoch is
    // over.
    std::erase_if(events_, [this](const GroupEvent& event) {
      const auto* lost = std::get_if<Lost>(&event);
      return lost == nullptr || owner_epoch_ == 0 || lost->epoch != owner_epoch_;
    });
    if (owner_epoch_ != 0 && events_.empty()) {
      events_.push_back(Lost{
          .epoch = owner_epoch_,
          .why = absl::UnavailableError(fmt::format("group {}: the leader has gone ({})",
                                                    shape_.group, std::string(why.message())))});
    }
  }
  Notify();
}

void MemberMailbox::Refuse(absl::Status why) {
  {
    const std::lock_guard lock(mutex_);
    events_.push_back(Refused{.why = std::move(why)});
  }
  Notify();
}

bool MemberMailbox::welcomed() const {
  const std::lock_guard lock(mutex_);
  return welcomed_;
}

bool MemberMailbox::stream_over() const {
  const std::lock_guard lock(mutex_);
  return !streaming_;
}

std::uint64_t MemberMailbox::last_epoch() const {
  const std::lock_guard lock(mutex_);
  return last_epoch_;
}

}  // namespace baleen::worker
