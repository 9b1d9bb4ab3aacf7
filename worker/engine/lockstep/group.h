// The group of a rank as its engine sees it: a seam.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "worker/expert_parallel/all_to_all.h"

namespace baleen::worker {

// A group that is complete, for one epoch.
struct FormedGroup {
  std::uint64_t epoch = 0;
  // Shared with whoever may have to abort it.
  std::shared_ptr<GroupEndpoint> endpoint;
};

// Called on the engine's thread. Real: GroupRuntime (worker/group/runtime). Twin: FakeGroup
// (tests/fakes).
class Group {
 public:
  virtual ~Group() = default;

  // A new epoch, each once, newest only.
  virtual std::optional<FormedGroup> TakeFormed() = 0;

  // The epoch is over, and its endpoint not used any more. `why` names the peer and the phase;
  // CANCELLED: this rank stops, and takes no other epoch.
  virtual void OnBroken(std::uint64_t epoch, const absl::Status& why) = 0;

  // How many changes of the placement this rank could have adopted since the epoch began.
  virtual std::uint32_t Prepared() const = 0;

  // The next of them takes effect: all ranks have prepared it, and all adopt it before the same
  // step.
  virtual void Adopt() = 0;

  // A step of the epoch has been computed.
  virtual void OnStep() = 0;
};

}  // namespace baleen::worker
