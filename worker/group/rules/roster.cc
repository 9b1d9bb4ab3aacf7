#include "worker/group/rules/roster.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "worker/group/rules/rebalance.h"

namespace baleen::worker {
namespace {

// An epoch that lasts so long was no false start.
constexpr absl::Duration kSteadyAfter = absl::Seconds(10);
// Between false starts: grows twofold.
constexpr absl::Duration kPauseFirst = absl::Milliseconds(100);
constexpr absl::Duration kPauseMax = absl::Seconds(2);

// "rank 2", "ranks 2, 3"
std::string RankList(const std::vector<std::uint32_t>& ranks) {
  return fmt::format("{} {}", ranks.size() == 1 ? "rank" : "ranks", fmt::join(ranks, ", "));
}

}  // namespace

Roster::Roster(RosterOptions options, const PlacementShape& shape,
               std::vector<LayerPlacement> layers, absl::Duration now)
    : options_(std::move(options)),
      placement_{.version = options_.first_number, .shape = shape, .layers = std::move(layers)},
      members_(options_.terms.ranks),
      next_epoch_(options_.first_number),
      waiting_since_(now),
      missing_logged_at_(now),
      heartbeat_at_(now),
      rebalanced_at_(now),
      counts_(placement_.layers.size(), std::vector<std::uint64_t>(shape.experts, 0)) {
  BALEEN_CHECK(CheckGroupTerms(options_.terms).ok(), "the group's terms are within the limits");
  BALEEN_CHECK(CheckGroupPlacement(placement_).ok(), "the placement is within the limits");
  BALEEN_CHECK(static_cast<std::uint32_t>(shape.ranks) == options_.terms.ranks,
               "the placement is for the ranks of the group");
  BALEEN_CHECK(options_.first_number >= 1 && options_.first_number <= kEpochMax,
               "numbers have room to grow");
}

// What members say ------------------------------------------------------------------------------

absl::Status Roster::Hear(MemberStreamId stream, const MemberMessage& message, absl::Duration now) {
  const std::optional<std::uint32_t> rank = RankOf(stream);
  if (!rank.has_value()) {
    const auto* hello = std::get_if<HelloMessage>(&message);
    if (hello == nullptr) {
      return absl::FailedPreconditionError("the first message must be Hello");
    }
    const absl::Status joined = Join(stream, *hello, now);
    // Who tries again and again is worth one line.
    if (!joined.ok() && joined.message() != last_refusal_) {
      last_refusal_ = std::string(joined.message());
      log::Warning("rank refused", {{"group", options_.terms.group},
                                    {"rank", hello->rank},
                                    {"why", std::string(joined.message())}});
    }
    return joined;
  }
  const absl::Status taken = HearMember(*rank, message, now);
  if (!taken.ok())
    Remove(*rank, fmt::format("it broke the rules: {}", std::string(taken.message())), now);
  return taken;
}

absl::Status Roster::Join(MemberStreamId stream, const HelloMessage& hello, absl::Duration now) {
  const GroupTerms& terms = options_.terms;
  if (hello.protocol_version != kGroupProtocolVersion) {
    return absl::FailedPreconditionError(
        fmt::format("group {}: rank {} speaks protocol version {}, the leader {}", terms.group,
                    hello.rank, hello.protocol_version, kGroupProtocolVersion));
  }
  BALEEN_RETURN_IF_ERROR(CheckGroupTerms(hello.terms));
  BALEEN_RETURN_IF_ERROR(CompareGroupTerms(terms, hello.rank, hello.terms));
  if (hello.rank >= terms.ranks) {
    return absl::InvalidArgumentError(fmt::format("group {}: there is no rank {}, only 0 to {}",
                                                  terms.group, hello.rank, terms.ranks - 1));
  }
  if (hello.incarnation == 0 || hello.last_epoch > kEpochMax) {
    return absl::InvalidArgumentError(
        fmt::format("group {}: rank {} has incarnation {} and last epoch {}, not above 0 and at "
                    "most {}",
                    terms.group, hello.rank, hello.incarnation, hello.last_epoch, kEpochMax));
  }
  if (const std::optional<Member>& held = members_[hello.rank]; held.has_value()) {
    if (held->incarnation != hello.incarnation) {
      return absl::AlreadyExistsError(fmt::format(
          "group {}: rank {} is held by another process, which lives", terms.group, hello.rank));
    }
    outputs_.push_back({held->stream, absl::AbortedError("this process has joined again")});
    Remove(hello.rank, "it joined again", now);
  }
  next_epoch_ = std::max(next_epoch_, hello.last_epoch + 1);
  members_[hello.rank] =
      Member{.stream = stream, .incarnation = hello.incarnation, .heard_at = now};
  log::Info(
      "rank joined",
      {{"group", terms.group},
       {"rank", hello.rank},
       {"present", std::ranges::count_if(members_, [](const auto& m) { return m.has_value(); })},
       {"ranks", terms.ranks}});
  Tell(stream,
       std::make_shared<const LeaderMessage>(WelcomeMessage{.placement = placement_,
                                                            .heartbeat = options_.heartbeat,
                                                            .silence_max = options_.silence_max}));
  return absl::OkStatus();
}

absl::Status Roster::HearMember(std::uint32_t rank, const MemberMessage& message,
                                absl::Duration now) {
  Member& member = *members_[rank];
  member.heard_at = now;
  if (std::holds_alternative<HelloMessage>(message)) {
    return absl::InvalidArgumentError("a second Hello");
  }
  if (const auto* ready = std::get_if<ReadyMessage>(&message)) return HearReady(rank, *ready, now);
  if (const auto* counts = std::get_if<CountsMessage>(&message)) return HearCounts(*counts);
  if (const auto* broken = std::get_if<BrokenMessage>(&message)) {
    // Of an epoch that is over: it crossed with our Lost.
    if (epoch_ != 0 && broken->epoch == epoch_) {
      EndEpoch(rank, fmt::format("has broken off: {}", broken->why.substr(0, kLostWhyBytesMax / 2)),
               now);
      PauseAfterBreak(now);
    }
  } else if (const auto* adopted = std::get_if<AdoptedMessage>(&message)) {
    if (adopted->placement_version > placement_.version) {
      return absl::InvalidArgumentError(fmt::format("Adopted placement {}, the newest is {}",
                                                    adopted->placement_version,
                                                    placement_.version));
    }
    member.placement_version = std::max(member.placement_version, adopted->placement_version);
  }
  return absl::OkStatus();
}

absl::Status Roster::HearReady(std::uint32_t rank, const ReadyMessage& ready, absl::Duration now) {
  if (ready.endpoint_address.empty() || ready.endpoint_address.size() > kEndpointAddressBytesMax) {
    return absl::InvalidArgumentError(fmt::format("Ready with an address of {} bytes, not 1 to {}",
                                                  ready.endpoint_address.size(),
                                                  kEndpointAddressBytesMax));
  }
  if (ready.placement_version > placement_.version) {
    return absl::InvalidArgumentError(fmt::format("Ready with placement {}, the newest is {}",
                                                  ready.placement_version, placement_.version));
  }
  // The others are connected to an endpoint that it does not have any more.
  if (epoch_ != 0) {
    EndEpoch(rank, "has a new endpoint", now);
    PauseAfterBreak(now);
  }
  members_[rank]->placement_version = ready.placement_version;
  members_[rank]->endpoint_address = ready.endpoint_address;
  FormIfReady(now);
  return absl::OkStatus();
}

absl::Status Roster::HearCounts(const CountsMessage& message) {
  const ExpertCounts& counts = message.counts;
  const auto experts = static_cast<std::size_t>(placement_.shape.experts);
  if (counts.size() != counts_.size() ||
      std::ranges::any_of(counts, [&](const auto& layer) { return layer.size() != experts; })) {
    return absl::InvalidArgumentError(
        fmt::format("Counts are not of {} layers of {} experts", counts_.size(), experts));
  }
  for (std::size_t layer = 0; layer < counts.size(); ++layer) {
    for (std::size_t expert = 0; expert < experts; ++expert) {
      const std::uint64_t added = std::min(counts[layer][expert], kExpertTokensMax);
      std::uint64_t& sum = counts_[layer][expert];
      sum = std::min(sum + added, kExpertTokensMax);
    }
  }
  return absl::OkStatus();
}

// Joining and leaving ---------------------------------------------------------------------------

void Roster::Leave(MemberStreamId stream, const std::string& why, absl::Duration now) {
  if (const std::optional<std::uint32_t> rank = RankOf(stream)) Remove(*rank, why, now);
}

void Roster::Remove(std::uint32_t rank, const std::string& why, absl::Duration now) {
  members_[rank].reset();
  log::Warning("rank gone", {{"group", options_.terms.group}, {"rank", rank}, {"why", why}});
  if (epoch_ != 0) EndEpoch(rank, fmt::format("has gone ({})", why), now);
}

void Roster::FormIfReady(absl::Duration now) {
  const auto ready = [this](const std::optional<Member>& member) {
    return member.has_value() && IsReady(*member);
  };
  if (epoch_ != 0 || now < form_not_before_ || !std::ranges::all_of(members_, ready)) return;
  epoch_ = next_epoch_++;
  formed_at_ = now;
  FormedMessage formed{.epoch = epoch_, .placement_version = placement_.version};
  for (std::optional<Member>& member : members_) {
    formed.endpoint_addresses.push_back(*std::move(member->endpoint_address));
    member->endpoint_address.reset();
  }
  log::Info("group formed", {{"group", options_.terms.group},
                             {"epoch", epoch_},
                             {"ranks", options_.terms.ranks},
                             {"placement", placement_.version}});
  TellAll(std::move(formed));
}

void Roster::EndEpoch(std::uint32_t rank, const std::string& why, absl::Duration now) {
  const std::string full = fmt::format("group {}: rank {} {}", options_.terms.group, rank, why);
  log::Warning("epoch over", {{"group", options_.terms.group}, {"epoch", epoch_}, {"why", full}});
  const std::uint64_t ended = std::exchange(epoch_, 0);
  waiting_since_ = now;
  missing_logged_at_ = now;
  TellAll(LostMessage{.epoch = ended, .rank = rank, .why = full});
}

// Endpoints that break again and again, because two ranks cannot reach each other, must not keep
// everybody busy. The first break costs nothing.
void Roster::PauseAfterBreak(absl::Duration now) {
  breaks_ = now - formed_at_ < kSteadyAfter ? breaks_ + 1 : 1;
  if (breaks_ == 1) return;
  form_not_before_ = now + std::min(kPauseMax, kPauseFirst * (1 << std::min(breaks_ - 2, 10)));
}

// What time brings ------------------------------------------------------------------------------

void Roster::Tick(absl::Duration now) {
  for (std::uint32_t rank = 0; rank < members_.size(); ++rank) {
    const std::optional<Member>& member = members_[rank];
    if (!member.has_value() || now - member->heard_at <= options_.silence_max) continue;
    const std::string why =
        fmt::format("it was silent for {}", absl::FormatDuration(options_.silence_max));
    outputs_.push_back({member->stream, absl::UnavailableError(why)});
    Remove(rank, why, now);
  }
  FormIfReady(now);
  if (epoch_ == 0) {
    if (now - waiting_since_ >= options_.join_max) GiveUpWaiting(now);
    if (now - missing_logged_at_ >= options_.missing_log_every) {
      missing_logged_at_ = now;
      log::Info("group not formed yet", {{"group", options_.terms.group},
                                         {"missing", Missing()},
                                         {"seconds", absl::ToDoubleSeconds(now - waiting_since_)}});
    }
  }
  if (now - heartbeat_at_ >= options_.heartbeat) {
    heartbeat_at_ = now;
    TellAll(LeaderHeartbeat{});
  }
  Rebalance(now);
}

void Roster::GiveUpWaiting(absl::Duration now) {
  waiting_since_ = now;
  const absl::Status why =
      absl::DeadlineExceededError(fmt::format("group {}: waited {} for {}", options_.terms.group,
                                              absl::FormatDuration(options_.join_max), Missing()));
  log::Error("group did not form", {{"why", std::string(why.message())}});
  for (std::optional<Member>& member : members_) {
    if (member.has_value()) outputs_.push_back({member->stream, why});
    member.reset();
  }
}

// "ranks 2, 3 of 4; rank 1 has joined and is not ready"
std::string Roster::Missing() const {
  std::vector<std::uint32_t> absent;
  std::vector<std::uint32_t> unready;
  for (std::uint32_t rank = 0; rank < members_.size(); ++rank) {
    if (!members_[rank].has_value()) {
      absent.push_back(rank);
    } else if (!IsReady(*members_[rank])) {
      unready.push_back(rank);
    }
  }
  const char* const verb = unready.size() == 1 ? "has" : "have";
  const char* const state = unready.size() == 1 ? "is" : "are";
  std::string text;
  if (!absent.empty()) text = fmt::format("{} of {}", RankList(absent), members_.size());
  if (unready.empty()) return text;
  return absent.empty() ? fmt::format("{} of {}, which {} joined and {} not ready",
                                      RankList(unready), members_.size(), verb, state)
                        : fmt::format("{}; {} {} joined and {} not ready", text, RankList(unready),
                                      verb, state);
}

// The placement ---------------------------------------------------------------------------------

void Roster::Rebalance(absl::Duration now) {
  if (options_.rebalance_every <= absl::ZeroDuration() ||
      now - rebalanced_at_ < options_.rebalance_every) {
    return;
  }
  rebalanced_at_ = now;
  if (epoch_ == 0 || !AllAdopted()) return;
  std::optional<RebalanceProposal> proposal = ProposeRebalance(placement_, counts_);
  for (std::vector<std::uint64_t>& layer : counts_) {
    for (std::uint64_t& tokens : layer) tokens /= 2;
  }
  if (!proposal.has_value()) return;
  log::Info("experts are placed anew", {{"group", options_.terms.group},
                                        {"layers", proposal->layers_changed},
                                        {"imbalance_before", proposal->imbalance_before},
                                        {"imbalance_after", proposal->imbalance_after}});
  Publish(std::move(proposal->layers));
}

absl::StatusOr<std::uint64_t> Roster::Place(std::vector<std::vector<std::int32_t>> layers) {
  if (layers.size() != placement_.layers.size()) {
    return absl::InvalidArgumentError(fmt::format("expert placement: {} layers, must be {}",
                                                  layers.size(), placement_.layers.size()));
  }
  std::vector<LayerPlacement> made;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    absl::StatusOr<LayerPlacement> placement =
        LayerPlacement::Make(placement_.shape, std::move(layers[layer]));
    if (!placement.ok()) {
      return absl::InvalidArgumentError(
          fmt::format("layer {}: {}", layer, std::string(placement.status().message())));
    }
    made.push_back(*std::move(placement));
  }
  if (epoch_ == 0) {
    return absl::FailedPreconditionError(
        fmt::format("group {} is not formed: waits for {}", options_.terms.group, Missing()));
  }
  if (!AllAdopted()) {
    return absl::FailedPreconditionError(
        fmt::format("group {} has not adopted placement {} on all ranks yet", options_.terms.group,
                    placement_.version));
  }
  return Publish(std::move(made));
}

std::uint64_t Roster::Publish(std::vector<LayerPlacement> layers) {
  placement_.layers = std::move(layers);
  ++placement_.version;
  TellAll(PlaceMessage{.placement = placement_});
  return placement_.version;
}

// Views -----------------------------------------------------------------------------------------

std::vector<RosterOutput> Roster::Take() { return std::exchange(outputs_, {}); }

GroupView Roster::View() const {
  GroupView view{.group = options_.terms.group,
                 .epoch = epoch_,
                 .placement = placement_,
                 .counts = counts_,
                 .imbalance = ImbalanceOfLayers(placement_, counts_)};
  for (const std::optional<Member>& member : members_) {
    GroupView::Member& shown = view.members.emplace_back();
    if (!member.has_value()) continue;
    shown = {.present = true,
             .ready = epoch_ != 0 || IsReady(*member),
             .placement_version = member->placement_version};
  }
  return view;
}

std::optional<std::uint32_t> Roster::RankOf(MemberStreamId stream) const {
  for (std::uint32_t rank = 0; rank < members_.size(); ++rank) {
    if (members_[rank].has_value() && members_[rank]->stream == stream) return rank;
  }
  return std::nullopt;
}

bool Roster::IsReady(const Member& member) const {
  return member.endpoint_address.has_value() && member.placement_version == placement_.version;
}

bool Roster::AllAdopted() const {
  return std::ranges::all_of(members_, [this](const std::optional<Member>& member) {
    return member.has_value() && member->placement_version == placement_.version;
  });
}

void Roster::Tell(MemberStreamId stream, std::shared_ptr<const LeaderMessage> message) {
  outputs_.push_back({stream, std::move(message)});
}

void Roster::TellAll(LeaderMessage message) {
  const auto shared = std::make_shared<const LeaderMessage>(std::move(message));
  for (const std::optional<Member>& member : members_) {
    if (member.has_value()) Tell(member->stream, shared);
  }
}

}  // namespace baleen::worker
