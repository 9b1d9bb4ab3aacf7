// What the UCX endpoints of a group write to each other, and what is checked of it. Pure: bytes in,
// numbers or an error out. Everything here comes from a peer and is not believed.
//
// A frame is a header of 64 bytes, as the header of an active message; a dispatch or combine that
// does not go through shared memory has its rows behind it:
//   dispatch: [rows][row_bytes], [entries] PlannedEntry
//   combine:  [entries][output_bytes], in the order of the home rank's plan
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/expert_parallel/all_to_all.h"
#include "worker/expert_parallel/dispatch_plan.h"
#include "worker/expert_parallel/exchange_meter.h"

namespace baleen::worker {

enum class FrameKind : std::uint8_t {
  kHello = 1,  // the first of each peer: memory that the receiver may map
  kReady,      // the hello, or the goodbye, has been heard
  kOpening,
  kDispatch,
  kCombine,
  kWake,  // look at the mailbox: there is something
  kGoodbye,
};

// Why a rank says goodbye.
enum class Farewell : std::uint8_t {
  kLeft,      // of its own accord, or for a reason of its own
  kPeerGone,  // ExchangeFrame::culprit has gone
  kPeerLate,  // it waited too long for culprit
};

// As it is on the wire, little-endian.
struct ExchangeFrame {
  std::uint32_t magic = 0;
  FrameKind kind = FrameKind::kHello;
  std::uint8_t lane = 0;
  Farewell farewell = Farewell::kLeft;
  std::uint8_t leaves = 0;  // openings, as are step_epoch and step
  std::int32_t rank = 0;    // who speaks
  std::int32_t culprit = 0;
  std::uint64_t epoch = 0;
  std::uint64_t key = 0;      // of the endpoint that is spoken to
  std::uint64_t number = 0;   // counts openings, or dispatches or combines of a lane, from 1
  std::uint32_t rows = 0;     // openings: StepOpening::rows
  std::uint32_t entries = 0;  // openings: StepOpening::prepared
  // Hellos: number is the process, rows and entries are its file descriptors of the mailbox and of
  // the outputs; 0 if there are none.
  std::uint64_t step_epoch = 0;
  std::uint64_t step = 0;
};
static_assert(sizeof(ExchangeFrame) == 64);

// Who is spoken to.
struct EndpointIdentity {
  std::int32_t rank = 0;
  std::int32_t ranks = 1;
  std::uint64_t epoch = 0;
  std::uint64_t key = 0;
};

// Fills in what all frames of `from` for the endpoint with `key` have in common.
ExchangeFrame MakeFrame(FrameKind kind, const EndpointIdentity& from, std::uint64_t key);

// nullopt for what is no frame of a peer to this endpoint: another length, key or rank, or numbers
// that no endpoint writes. The epoch is not looked at.
std::optional<ExchangeFrame> ReadFrame(std::span<const std::byte> header,
                                       const EndpointIdentity& self);

// FAILED_PRECONDITION: what `rank` said in `phase` is against the rules.
struct Bounds {
  std::uint64_t least = 0;
  std::uint64_t most = 0;
};
absl::Status BreaksTheRules(std::int32_t rank, ExchangePhase phase, std::string_view what,
                            std::uint64_t value, Bounds bounds);

// How many entries a rank can have for one other rank.
std::int64_t EntriesMax(const AllToAllShape& shape);

struct DispatchCounts {
  std::uint32_t rows = 0;
  std::uint32_t entries = 0;
};
absl::Status CheckDispatchCounts(const AllToAllShape& shape, std::int32_t source,
                                 DispatchCounts counts);

// Of what is behind the header; CheckDispatchCounts.
std::uint64_t DispatchBytes(const AllToAllShape& shape, DispatchCounts counts);

// Appends the entries of `source` to `entries`. They are copied first and checked then: the source
// could go on writing. Precondition: CheckDispatchCounts.
absl::Status TakeEntries(const AllToAllShape& shape, std::int32_t source, const std::byte* from,
                         DispatchCounts counts, std::vector<PlannedEntry>& entries);

// How one rank is reached and what it was started with: an endpoint's address.
struct JoinCard {
  std::int32_t rank = 0;
  std::uint64_t key = 0;      // frames for this endpoint carry it
  std::uint64_t machine = 0;  // equal for ranks that may share memory
  AllToAllShape shape;        // without wait_max
  std::string ucx_address;
};

inline constexpr std::size_t kJoinCardBytesMax = 4096;

std::string WriteJoinCard(const JoinCard& card);
// INVALID_ARGUMENT says what is wrong with the card that rank `rank` is said to have written.
absl::StatusOr<JoinCard> ReadJoinCard(std::string_view bytes, std::int32_t rank);
// INVALID_ARGUMENT names the number in which `theirs` and `mine` do not fit together.
absl::Status CheckJoinCard(const JoinCard& theirs, const JoinCard& mine);

}  // namespace baleen::worker
