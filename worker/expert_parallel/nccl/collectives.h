// What the exchange over NCCL asks of NCCL and CUDA: a seam between NcclEndpoint, which is host
// code and decides what goes where, and the device, which carries it.
//
// Each lane is a queue of work, in order, as a CUDA stream is. Exchanges of both lanes are also in
// order among themselves: all ranks ask for the same ones in the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace baleen::worker {

// Bytes of device memory.
struct DeviceBytes {
  std::byte* begin = nullptr;
  std::size_t size = 0;
};

// Rows of device memory, from or to places that host memory names.
struct RowCopy {
  enum class Kind : std::uint8_t {
    kGather,   // to[i] = from[places[i]]
    kScatter,  // to[places[i]] = from[i], places distinct
  };
  Kind kind = Kind::kGather;
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  std::span<const std::int32_t> places;  // stay as they are until the lane's Await is true
  std::int32_t row_bytes = 0;
};

// Real: NcclCollectives. Its twin, over host memory, is with the tests. One thread, but Abort. What
// is asked for must fit: a lane has at most one copy and one exchange between two Awaits that are
// true. Errors name what failed; after one only Abort and destruction are of use.
class Collectives {
 public:
  virtual ~Collectives() = default;

  // What the lane is asked from now on begins when the model's stream has done what it holds now.
  virtual absl::Status FollowModel(int lane) = 0;

  virtual absl::Status CopyRows(int lane, const RowCopy& copy) = 0;

  // By rank, this one included: what goes to it, and what comes from it. Both ends of a pair state
  // the same size; empty ones are left out.
  virtual absl::Status Exchange(int lane, std::span<const DeviceBytes> sends,
                                std::span<const DeviceBytes> receives) = 0;

  // Until all that the lane was asked for is done (true) or `limit` has passed (false). CANCELLED
  // after Abort.
  virtual absl::StatusOr<bool> Await(int lane, absl::Duration limit) = 0;

  // Any thread: ends the current Await, and all that follow.
  virtual void Abort() = 0;
};

}  // namespace baleen::worker
