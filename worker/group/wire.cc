#include "worker/group/wire.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "observability/base/status_macros.h"

namespace baleen::worker::wire {
namespace {

// Faster heartbeats would be a load of their own, slower ones would outlast any patience.
constexpr std::uint32_t kHeartbeatMsMin = 10;
constexpr std::uint32_t kHeartbeatMsMax = 10'000;
constexpr std::uint32_t kSilenceMsMax = 60'000;

// The wire takes UTF-8 only, and a cut may fall into a character.
std::string Why(std::string_view text) {
  std::string why(text.substr(0, kLostWhyBytesMax));
  std::ranges::replace_if(
      why, [](unsigned char c) { return c < 0x20 || c >= 0x7f; }, '?');
  return why;
}

// To the wire -----------------------------------------------------------------------------------

void Fill(const GroupPlacement& placement, v1::ExpertPlacement* out) {
  out->set_version(placement.version);
  out->set_experts(placement.shape.experts);
  out->set_ranks(placement.shape.ranks);
  out->set_redundant_experts(placement.shape.redundant_experts);
  for (const LayerPlacement& layer : placement.layers) {
    const std::vector<std::int32_t>& slots = layer.expert_of_slot();
    out->add_layers()->mutable_expert_of_slot()->Assign(slots.begin(), slots.end());
  }
}

struct MemberFiller {
  v1::MemberMessage& out;

  void operator()(const HelloMessage& hello) const {
    v1::MemberMessage::Hello& body = *out.mutable_hello();
    body.set_protocol_version(hello.protocol_version);
    body.set_group(hello.terms.group);
    body.set_rank(hello.rank);
    body.set_ranks(hello.terms.ranks);
    body.set_incarnation(hello.incarnation);
    body.set_model_digest(hello.terms.model_digest);
    body.set_build(hello.terms.build);
    for (const GroupFact& fact : hello.terms.facts) {
      v1::MemberMessage::Fact& added = *body.add_facts();
      added.set_name(fact.name);
      added.set_value(fact.value);
    }
    body.set_last_epoch(hello.last_epoch);
  }
  void operator()(const ReadyMessage& ready) const {
    out.mutable_ready()->set_placement_version(ready.placement_version);
    out.mutable_ready()->set_endpoint_address(ready.endpoint_address);
  }
  void operator()(const BrokenMessage& broken) const {
    out.mutable_broken()->set_epoch(broken.epoch);
    out.mutable_broken()->set_why(Why(broken.why));
  }
  void operator()(const AdoptedMessage& adopted) const {
    out.mutable_adopted()->set_placement_version(adopted.placement_version);
  }
  void operator()(const CountsMessage& message) const {
    v1::MemberMessage::Counts& body = *out.mutable_counts();
    for (const std::vector<std::uint64_t>& layer : message.counts) {
      body.add_layers()->mutable_tokens()->Assign(layer.begin(), layer.end());
    }
  }
  void operator()(const MemberHeartbeat&) const { out.mutable_heartbeat(); }
};

struct LeaderFiller {
  v1::LeaderMessage& out;

  void operator()(const WelcomeMessage& welcome) const {
    v1::LeaderMessage::Welcome& body = *out.mutable_welcome();
    Fill(welcome.placement, body.mutable_placement());
    body.set_heartbeat_ms(absl::ToInt64Milliseconds(welcome.heartbeat));
    body.set_silence_ms(absl::ToInt64Milliseconds(welcome.silence_max));
  }
  void operator()(const FormedMessage& formed) const {
    v1::LeaderMessage::Formed& body = *out.mutable_formed();
    body.set_epoch(formed.epoch);
    body.set_placement_version(formed.placement_version);
    for (const std::string& address : formed.endpoint_addresses) {
      body.add_endpoint_addresses(address);
    }
  }
  void operator()(const LostMessage& lost) const {
    out.mutable_lost()->set_epoch(lost.epoch);
    out.mutable_lost()->set_rank(lost.rank);
    out.mutable_lost()->set_why(Why(lost.why));
  }
  void operator()(const PlaceMessage& place) const {
    Fill(place.placement, out.mutable_place()->mutable_placement());
  }
  void operator()(const LeaderHeartbeat&) const { out.mutable_heartbeat(); }
};

// From the wire ---------------------------------------------------------------------------------

absl::Status TooMany(const char* what, std::uint64_t number, std::uint64_t most) {
  return absl::InvalidArgumentError(fmt::format("{}: {}, the most are {}", what, number, most));
}

HelloMessage FromWire(v1::MemberMessage::Hello& hello) {
  HelloMessage message{.protocol_version = hello.protocol_version(),
                       .terms = {.group = std::move(*hello.mutable_group()),
                                 .ranks = hello.ranks(),
                                 .model_digest = std::move(*hello.mutable_model_digest()),
                                 .build = std::move(*hello.mutable_build())},
                       .rank = hello.rank(),
                       .incarnation = hello.incarnation(),
                       .last_epoch = hello.last_epoch()};
  for (v1::MemberMessage::Fact& fact : *hello.mutable_facts()) {
    message.terms.facts.push_back(
        {.name = std::move(*fact.mutable_name()), .value = std::move(*fact.mutable_value())});
  }
  return message;
}

absl::StatusOr<MemberMessage> FromWire(const v1::MemberMessage::Counts& body) {
  CountsMessage message;
  std::size_t entries = 0;
  for (const v1::LayerCounts& layer : body.layers()) {
    entries += layer.tokens_size();
    message.counts.emplace_back(layer.tokens().begin(), layer.tokens().end());
    for (const std::uint64_t tokens : message.counts.back()) {
      if (tokens > kExpertTokensMax)
        return TooMany("tokens of an expert", tokens, kExpertTokensMax);
    }
  }
  if (message.counts.size() > kMoeLayersMax) {
    return TooMany("layers of counts", message.counts.size(), kMoeLayersMax);
  }
  if (entries > kPlacementSlotsMax) return TooMany("counts", entries, kPlacementSlotsMax);
  return MemberMessage(std::move(message));
}

absl::StatusOr<GroupPlacement> FromWire(const v1::ExpertPlacement& wire) {
  // Before they become signed.
  if (wire.experts() > kExpertsMax) return TooMany("experts", wire.experts(), kExpertsMax);
  if (wire.ranks() > kGroupRanksMax) return TooMany("ranks", wire.ranks(), kGroupRanksMax);
  if (wire.redundant_experts() > kPlacementSlotsMax) {
    return TooMany("redundant experts", wire.redundant_experts(), kPlacementSlotsMax);
  }
  if (wire.version() > 2 * kEpochMax) return TooMany("version", wire.version(), 2 * kEpochMax);
  GroupPlacement placement{
      .version = wire.version(),
      .shape = {.experts = static_cast<std::int32_t>(wire.experts()),
                .ranks = static_cast<std::int32_t>(wire.ranks()),
                .redundant_experts = static_cast<std::int32_t>(wire.redundant_experts())}};
  BALEEN_RETURN_IF_ERROR(CheckPlacementShape(placement.shape));
  if (static_cast<std::size_t>(wire.layers_size()) > kMoeLayersMax) {
    return TooMany("layers", wire.layers_size(), kMoeLayersMax);
  }
  for (const v1::LayerSlots& layer : wire.layers()) {
    BALEEN_ASSIGN_OR_RETURN(LayerPlacement made,
                            LayerPlacement::Make(placement.shape, {layer.expert_of_slot().begin(),
                                                                   layer.expert_of_slot().end()}));
    placement.layers.push_back(std::move(made));
  }
  BALEEN_RETURN_IF_ERROR(CheckGroupPlacement(placement));
  return placement;
}

absl::StatusOr<LeaderMessage> FromWire(const v1::LeaderMessage::Welcome& body) {
  BALEEN_ASSIGN_OR_RETURN(GroupPlacement placement, FromWire(body.placement()));
  const std::uint32_t heartbeat = std::clamp(body.heartbeat_ms(), kHeartbeatMsMin, kHeartbeatMsMax);
  const std::uint32_t silence = std::clamp(body.silence_ms(), 2 * heartbeat, kSilenceMsMax);
  return LeaderMessage(WelcomeMessage{.placement = std::move(placement),
                                      .heartbeat = absl::Milliseconds(heartbeat),
                                      .silence_max = absl::Milliseconds(silence)});
}

absl::StatusOr<LeaderMessage> FromWire(v1::LeaderMessage::Formed& body) {
  const auto ranks = static_cast<std::size_t>(body.endpoint_addresses_size());
  if (ranks > kGroupRanksMax) return TooMany("addresses", ranks, kGroupRanksMax);
  if (body.epoch() == 0) return absl::InvalidArgumentError("Formed without an epoch");
  FormedMessage formed{.epoch = body.epoch(), .placement_version = body.placement_version()};
  for (std::string& address : *body.mutable_endpoint_addresses()) {
    if (address.size() > kEndpointAddressBytesMax) {
      return TooMany("bytes of an address", address.size(), kEndpointAddressBytesMax);
    }
    formed.endpoint_addresses.push_back(std::move(address));
  }
  return LeaderMessage(std::move(formed));
}

}  // namespace

v1::MemberMessage ToWire(const MemberMessage& message) {
  v1::MemberMessage out;
  std::visit(MemberFiller{out}, message);
  return out;
}

v1::LeaderMessage ToWire(const LeaderMessage& message) {
  v1::LeaderMessage out;
  std::visit(LeaderFiller{out}, message);
  return out;
}

v1::GroupDescription ToWire(const GroupView& view) {
  v1::GroupDescription out;
  out.set_group(view.group);
  out.set_epoch(view.epoch);
  for (std::size_t rank = 0; rank < view.members.size(); ++rank) {
    v1::GroupDescription::Member& member = *out.add_members();
    member.set_rank(static_cast<std::uint32_t>(rank));
    member.set_present(view.members[rank].present);
    member.set_ready(view.members[rank].ready);
    member.set_placement_version(view.members[rank].placement_version);
  }
  Fill(view.placement, out.mutable_placement());
  for (const std::vector<std::uint64_t>& layer : view.counts) {
    out.add_counts()->mutable_tokens()->Assign(layer.begin(), layer.end());
  }
  out.mutable_imbalance()->Assign(view.imbalance.begin(), view.imbalance.end());
  return out;
}

absl::StatusOr<MemberMessage> FromWire(v1::MemberMessage& message) {
  switch (message.body_case()) {
    case v1::MemberMessage::kHello:
      return MemberMessage(FromWire(*message.mutable_hello()));
    case v1::MemberMessage::kReady:
      return MemberMessage(ReadyMessage{
          .placement_version = message.ready().placement_version(),
          .endpoint_address = std::move(*message.mutable_ready()->mutable_endpoint_address())});
    case v1::MemberMessage::kBroken:
      return MemberMessage(
          BrokenMessage{.epoch = message.broken().epoch(),
                        .why = message.broken().why().substr(0, kLostWhyBytesMax)});
    case v1::MemberMessage::kAdopted:
      return MemberMessage(
          AdoptedMessage{.placement_version = message.adopted().placement_version()});
    case v1::MemberMessage::kCounts:
      return FromWire(message.counts());
    case v1::MemberMessage::kHeartbeat:
    case v1::MemberMessage::BODY_NOT_SET:
      break;
  }
  return MemberMessage(MemberHeartbeat{});
}

absl::StatusOr<LeaderMessage> FromWire(v1::LeaderMessage& message) {
  switch (message.body_case()) {
    case v1::LeaderMessage::kWelcome:
      return FromWire(message.welcome());
    case v1::LeaderMessage::kFormed:
      return FromWire(*message.mutable_formed());
    case v1::LeaderMessage::kLost:
      return LeaderMessage(LostMessage{.epoch = message.lost().epoch(),
                                       .rank = message.lost().rank(),
                                       .why = message.lost().why().substr(0, kLostWhyBytesMax)});
    case v1::LeaderMessage::kPlace: {
      BALEEN_ASSIGN_OR_RETURN(GroupPlacement placement, FromWire(message.place().placement()));
      return LeaderMessage(PlaceMessage{.placement = std::move(placement)});
    }
    case v1::LeaderMessage::kHeartbeat:
    case v1::LeaderMessage::BODY_NOT_SET:
      break;
  }
  return LeaderMessage(LeaderHeartbeat{});
}

std::vector<std::vector<std::int32_t>> FromWire(const v1::PlaceExpertsRequest& request) {
  std::vector<std::vector<std::int32_t>> layers;
  for (const v1::LayerSlots& layer : request.layers()) {
    layers.emplace_back(layer.expert_of_slot().begin(), layer.expert_of_slot().end());
  }
  return layers;
}

}  // namespace baleen::worker::wire
