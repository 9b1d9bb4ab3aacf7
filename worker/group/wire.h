// Between the wire (proto/baleen/v1/group.proto) and plain values. What comes in is checked for
// form and size here; whether it fits the group is the business of the roster and the member.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/baleen/v1/group.pb.h"
#include "worker/group/messages.h"

namespace baleen::worker::wire {

v1::MemberMessage ToWire(const MemberMessage& message);
v1::LeaderMessage ToWire(const LeaderMessage& message);
v1::GroupDescription ToWire(const GroupView& view);

// INVALID_ARGUMENT names what is out of range. A message of an unknown kind, of a newer protocol,
// is a heartbeat. Takes strings out of `message`.
absl::StatusOr<MemberMessage> FromWire(v1::MemberMessage& message);
absl::StatusOr<LeaderMessage> FromWire(v1::LeaderMessage& message);

std::vector<std::vector<std::int32_t>> FromWire(const v1::PlaceExpertsRequest& request);

}  // namespace baleen::worker::wire
