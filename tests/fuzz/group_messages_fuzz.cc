// Fuzz target: any bytes as a message to the leader of a group (first byte even) or from it (odd),
// taken by a roster or a mailbox that is amid its work. What is let through must leave both usable.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <variant>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "proto/baleen/v1/group.pb.h"
#include "tests/fuzz/fuzz_target.h"
#include "worker/group/rules/member_mailbox.h"
#include "worker/group/rules/roster.h"
#include "worker/group/wire.h"

namespace {

baleen::worker::GroupTerms Terms() {
  return {.group = "g", .ranks = 2, .model_digest = "d", .build = "b"};
}

void CheckError(const absl::Status& status) {
  BALEEN_CHECK(status.ok() || status.message().size() < 1000, "an error is one short line");
}

void ToLeader(const std::uint8_t* data, std::size_t size) {
  baleen::v1::MemberMessage wire;
  if (!wire.ParseFromArray(data, static_cast<int>(size))) return;
  const auto message = baleen::worker::wire::FromWire(wire);
  CheckError(message.status());
  if (!message.ok()) return;
  const baleen::worker::PlacementShape shape = {.experts = 4, .ranks = 2};
  baleen::worker::Roster roster({.terms = Terms()}, shape,
                                {baleen::worker::ContiguousPlacement(shape)}, {});
  const baleen::worker::HelloMessage hello = {.terms = Terms(), .rank = 1, .incarnation = 1};
  BALEEN_CHECK(roster.Hear({1}, hello, {}).ok(), "rank 1 joins");
  CheckError(roster.Hear({1}, *message, {}));
  CheckError(roster.Hear({2}, *message, {}));
  roster.Tick(absl::Seconds(1));
  for (const auto& output : roster.Take()) {
    if (const auto* told =
            std::get_if<std::shared_ptr<const baleen::worker::LeaderMessage>>(&output.what)) {
      baleen::v1::LeaderMessage sent = baleen::worker::wire::ToWire(**told);
      BALEEN_CHECK(baleen::worker::wire::FromWire(sent).ok(), "what it says is well-formed");
    }
  }
}

void FromLeader(const std::uint8_t* data, std::size_t size) {
  baleen::v1::LeaderMessage wire;
  if (!wire.ParseFromArray(data, static_cast<int>(size))) return;
  const auto message = baleen::worker::wire::FromWire(wire);
  CheckError(message.status());
  if (!message.ok()) return;
  baleen::worker::MemberMailbox mailbox({.group = "g", .ranks = 2, .experts = 4, .moe_layers = 1},
                                        nullptr);
  mailbox.BeginStream();
  CheckError(mailbox.Take(*message));
  CheckError(mailbox.Take(*message));
  while (const auto event = mailbox.Next(absl::ZeroDuration())) {
    if (const auto* joined = std::get_if<baleen::worker::Joined>(&*event)) {
      BALEEN_CHECK(joined->placement.shape.experts == 4 && joined->placement.layers.size() == 1,
                   "a placement fits the model");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool quiet = [] {
    baleen::log::Init("group_messages_fuzz", baleen::log::Format::kText,
                      baleen::log::Level::kError);
    return true;
  }();
  if (!quiet || size == 0) return 0;
  if (data[0] % 2 == 0) {
    ToLeader(data + 1, size - 1);
  } else {
    FromLeader(data + 1, size - 1);
  }
  return 0;
}
