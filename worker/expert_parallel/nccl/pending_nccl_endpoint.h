// An NcclEndpoint on its way into a group: its address is that of the host endpoint that goes
// along, and the id under which all join NCCL, which is rank 0's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "worker/expert_parallel/nccl/nccl_endpoint.h"
#include "worker/expert_parallel/pending_endpoint.h"

namespace baleen::worker {

inline constexpr std::size_t kNcclIdBytes = 128;

// A rank's part of NCCL: see NcclEndpoint::Parts.
struct JoinedNccl {
  std::unique_ptr<Collectives> collectives;
  std::byte* buffers = nullptr;
};

struct PendingNcclOptions {
  AllToAllShape shape;
  std::int32_t rank = 0;
  ExchangeMeter* meter = nullptr;         // borrowed, may be null
  std::unique_ptr<PendingEndpoint> host;  // of HostShape, the same rank
  // On rank 0 only: MakeNcclId. [kNcclIdBytes]
  std::function<absl::StatusOr<std::string>()> make_id;
  // NcclCollectives::Join.
  std::function<absl::StatusOr<JoinedNccl>(const std::string& id)> join;
};

class PendingNcclEndpoint final : public PendingEndpoint {
 public:
  // INVALID_ARGUMENT: CheckAllToAllShape. Else what make_id says.
  static absl::StatusOr<std::unique_ptr<PendingNcclEndpoint>> Create(PendingNcclOptions options);

  // kNcclIdBytes longer than the host endpoint's.
  const std::string& address() const override { return address_; }

  // The host endpoint first, which says who does not answer; then `join`.
  absl::StatusOr<std::shared_ptr<GroupEndpoint>> Connect(
      std::uint64_t epoch, std::span<const std::string> addresses) override;
  // The same, for who wants to own it.
  absl::StatusOr<std::unique_ptr<NcclEndpoint>> ConnectNccl(std::uint64_t epoch,
                                                            std::span<const std::string> addresses);

 private:
  PendingNcclEndpoint(PendingNcclOptions options, std::string id);

  const PendingNcclOptions options_;
  const std::string address_;
};

}  // namespace baleen::worker
