// What the ranks of a group and its leader say to each other, as plain values: proto/baleen/v1/
// group.proto without the wire. And the limits that both sides check.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/expert_parallel/placement.h"

namespace baleen::worker {

inline constexpr std::uint32_t kGroupProtocolVersion = 1;
inline constexpr std::size_t kGroupNameBytesMax = 64;
inline constexpr std::size_t kGroupFactsMax = 64;
inline constexpr std::size_t kGroupFactNameBytesMax = 64;
inline constexpr std::size_t kGroupFactValueBytesMax = 256;  // digest and build too
inline constexpr std::size_t kEndpointAddressBytesMax = std::size_t{16} << 10;
inline constexpr std::size_t kLostWhyBytesMax = 1024;
// MoE layers of a model; the largest served ones have 60.
inline constexpr std::size_t kMoeLayersMax = 1024;
// Expert slots of all layers together; DeepSeek-R1 with 64 redundant experts has 18,560.
inline constexpr std::size_t kPlacementSlotsMax = std::size_t{1} << 19;
// Tokens in one count: 7 bytes on the wire.
inline constexpr std::uint64_t kExpertTokensMax = (std::uint64_t{1} << 48) - 1;
// Epochs and versions stay far from their end, whatever a peer says.
inline constexpr std::uint64_t kEpochMax = std::uint64_t{1} << 62;

inline constexpr std::size_t kMemberMessageBytesMax = std::size_t{4} << 20;
inline constexpr std::size_t kLeaderMessageBytesMax = std::size_t{20} << 20;
static_assert(7 * kPlacementSlotsMax + 16 * kMoeLayersMax < kMemberMessageBytesMax,
              "counts of the largest model fit a message");
static_assert(kGroupRanksMax * (kEndpointAddressBytesMax + 16) < kLeaderMessageBytesMax,
              "addresses of the largest group fit a message");

// Where the experts of all MoE layers are. nodes and expert_groups of `shape` are the leader's
// affair and do not travel.
struct GroupPlacement {
  std::uint64_t version = 0;
  PlacementShape shape;
  std::vector<LayerPlacement> layers;  // MoE layers, in order
};

// Tokens that went to each expert: [MoE layers][experts].
using ExpertCounts = std::vector<std::vector<std::uint64_t>>;

// Something that must be equal on all ranks, for example {"arithmetic", "baleen-1"}.
struct GroupFact {
  std::string name;
  std::string value;
  friend bool operator==(const GroupFact&, const GroupFact&) = default;
};

// What must be equal on all ranks of a group for them to compute together.
struct GroupTerms {
  std::string group;  // "prefill-0"
  std::uint32_t ranks = 1;
  std::string model_digest;
  std::string build;
  // Names are distinct; the order does not matter.
  std::vector<GroupFact> facts;
};

// INVALID_ARGUMENT names what is too long, too many, or out of range.
absl::Status CheckGroupTerms(const GroupTerms& terms);

// FAILED_PRECONDITION names the first difference with both values: "rank 2 has arithmetic 'a', the
// group 'b'".
absl::Status CompareGroupTerms(const GroupTerms& group, std::uint32_t rank,
                               const GroupTerms& of_rank);

// INVALID_ARGUMENT unless shape, number of layers and slots are within the limits and `layers` are
// of that shape.
absl::Status CheckGroupPlacement(const GroupPlacement& placement);

// To the leader ------------------------------------------------------------------------------

struct HelloMessage {
  std::uint32_t protocol_version = kGroupProtocolVersion;
  GroupTerms terms;
  std::uint32_t rank = 0;
  std::uint64_t incarnation = 0;  // random at each process start, not 0
  std::uint64_t last_epoch = 0;
};
struct ReadyMessage {
  std::uint64_t placement_version = 0;
  std::string endpoint_address;
};
struct BrokenMessage {
  std::uint64_t epoch = 0;
  std::string why;
};
struct AdoptedMessage {
  std::uint64_t placement_version = 0;
};
struct CountsMessage {
  ExpertCounts counts;
};
struct MemberHeartbeat {};

using MemberMessage = std::variant<HelloMessage, ReadyMessage, BrokenMessage, AdoptedMessage,
                                   CountsMessage, MemberHeartbeat>;

// From the leader ----------------------------------------------------------------------------

struct WelcomeMessage {
  GroupPlacement placement;
  absl::Duration heartbeat;
  absl::Duration silence_max;
};
struct FormedMessage {
  std::uint64_t epoch = 0;
  std::uint64_t placement_version = 0;
  std::vector<std::string> endpoint_addresses;  // by rank
};
struct LostMessage {
  std::uint64_t epoch = 0;
  std::uint32_t rank = 0;
  std::string why;
};
struct PlaceMessage {
  GroupPlacement placement;
};
struct LeaderHeartbeat {};

using LeaderMessage =
    std::variant<WelcomeMessage, FormedMessage, LostMessage, PlaceMessage, LeaderHeartbeat>;

// The leader's view, for people.
struct GroupView {
  struct Member {
    bool present = false;
    bool ready = false;                   // has the current placement and an endpoint
    std::uint64_t placement_version = 0;  // that it has; 0 = none
  };
  std::string group;
  std::uint64_t epoch = 0;      // 0 = not formed
  std::vector<Member> members;  // by rank
  GroupPlacement placement;
  ExpertCounts counts;
  std::vector<double> imbalance;  // by MoE layer
};

}  // namespace baleen::worker
