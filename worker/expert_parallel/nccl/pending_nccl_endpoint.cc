#include "worker/expert_parallel/nccl/pending_nccl_endpoint.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "observability/base/check.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {

PendingNcclEndpoint::PendingNcclEndpoint(PendingNcclOptions options, std::string id)
    : options_(std::move(options)), address_(options_.host->address() + id) {}

absl::StatusOr<std::unique_ptr<PendingNcclEndpoint>> PendingNcclEndpoint::Create(
    PendingNcclOptions options) {
  BALEEN_RETURN_IF_ERROR(CheckAllToAllShape(options.shape));
  std::string id(kNcclIdBytes, '\0');
  if (options.rank == 0) {
    BALEEN_ASSIGN_OR_RETURN(id, options.make_id());
    BALEEN_CHECK(id.size() == kNcclIdBytes, "an id of NCCL");
  }
  return std::unique_ptr<PendingNcclEndpoint>(
      new PendingNcclEndpoint(std::move(options), std::move(id)));
}

absl::StatusOr<std::unique_ptr<NcclEndpoint>> PendingNcclEndpoint::ConnectNccl(
    std::uint64_t epoch, std::span<const std::string> addresses) {
  std::vector<std::string> host_addresses;
  for (const std::string& address : addresses) {
    if (address.size() < kNcclIdBytes) {
      return absl::InvalidArgumentError(
          fmt::format("all-to-all: the address of rank {} has {} bytes, not {} or more",
                      host_addresses.size(), address.size(), kNcclIdBytes));
    }
    host_addresses.push_back(address.substr(0, address.size() - kNcclIdBytes));
  }
  BALEEN_ASSIGN_OR_RETURN(auto host, options_.host->Connect(epoch, host_addresses));
  const std::string id = addresses.front().substr(host_addresses.front().size());
  BALEEN_ASSIGN_OR_RETURN(JoinedNccl joined, options_.join(id));
  return std::make_unique<NcclEndpoint>(
      options_.shape, NcclEndpoint::Parts{.rank = options_.rank,
                                          .host = std::move(host),
                                          .collectives = std::move(joined.collectives),
                                          .buffers = joined.buffers,
                                          .meter = options_.meter});
}

absl::StatusOr<std::shared_ptr<GroupEndpoint>> PendingNcclEndpoint::Connect(
    std::uint64_t epoch, std::span<const std::string> addresses) {
  return ConnectNccl(epoch, addresses);
}

}  // namespace baleen::worker
