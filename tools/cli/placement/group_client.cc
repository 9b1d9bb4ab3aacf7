#include "tools/cli/placement/group_client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "observability/base/status_macros.h"
#include "proto/baleen/v1/group.grpc.pb.h"
#include "security/grpc/channel_credentials.h"

namespace baleen::cli {
namespace {

std::shared_ptr<grpc::Channel> MakeChannel(
    const std::string& address, const std::shared_ptr<security::CertificateStore>& certificates) {
  grpc::ChannelArguments arguments;
  // A leader is never behind the HTTP proxy that the environment may name.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(static_cast<int>(worker::kLeaderMessageBytesMax));
  arguments.SetMaxSendMessageSize(static_cast<int>(worker::kLeaderMessageBytesMax));
  return grpc::CreateCustomChannel(
      address, security::MakeInternalChannelCredentials(certificates, security::Role::kWorker),
      arguments);
}

void SetDeadline(absl::Duration within, grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(within));
}

absl::Status Lost(const std::string& why) {
  return absl::DataLossError(fmt::format("the leader's answer can not be used: {}", why));
}

// A number of the wire that the checks after this one take for too large when it is.
std::int32_t Count(std::uint32_t number) {
  return static_cast<std::int32_t>(std::min<std::uint32_t>(number, 1u << 30));
}

absl::StatusOr<worker::GroupPlacement> PlacementOf(const v1::ExpertPlacement& wire) {
  worker::GroupPlacement placement{.version = wire.version(),
                                   .shape = {.experts = Count(wire.experts()),
                                             .ranks = Count(wire.ranks()),
                                             .redundant_experts = Count(wire.redundant_experts())}};
  BALEEN_RETURN_IF_ERROR(worker::CheckPlacementShape(placement.shape));
  for (const v1::LayerSlots& layer : wire.layers()) {
    BALEEN_ASSIGN_OR_RETURN(
        auto made, worker::LayerPlacement::Make(placement.shape, {layer.expert_of_slot().begin(),
                                                                  layer.expert_of_slot().end()}));
    placement.layers.push_back(std::move(made));
  }
  BALEEN_RETURN_IF_ERROR(worker::CheckGroupPlacement(placement));
  return placement;
}

absl::StatusOr<worker::ExpertCounts> CountsOf(const v1::GroupDescription& wire,
                                              const worker::GroupPlacement& placement) {
  worker::ExpertCounts counts;
  for (const v1::LayerCounts& layer : wire.counts()) {
    counts.emplace_back(layer.tokens().begin(), layer.tokens().end());
    const bool fits = counts.back().size() == static_cast<std::size_t>(placement.shape.experts) &&
                      std::ranges::all_of(counts.back(), [](std::uint64_t n) {
                        return n <= worker::kExpertTokensMax;
                      });
    if (!fits) {
      return absl::InvalidArgumentError(
          fmt::format("the counts of MoE layer {} are not {} numbers up to {}", counts.size() - 1,
                      placement.shape.experts, worker::kExpertTokensMax));
    }
  }
  if (counts.size() != placement.layers.size()) {
    return absl::InvalidArgumentError(fmt::format("counts of {} layers, the placement has {}",
                                                  counts.size(), placement.layers.size()));
  }
  return counts;
}

}  // namespace

struct GroupClient::Stub {
  std::string address;
  std::unique_ptr<v1::Group::Stub> group;

  absl::Status ToStatus(const grpc::Status& status) const {
    if (status.ok()) return absl::OkStatus();
    // The numbers of the two enums are the same by design.
    const auto code = static_cast<absl::StatusCode>(status.error_code());
    if (code == absl::StatusCode::kUnimplemented) {
      return {code, fmt::format("{}: who listens there leads no group", address)};
    }
    return {code, fmt::format("leader {}: {}: {}", address, absl::StatusCodeToString(code),
                              status.error_message())};
  }
};

GroupClient::GroupClient(const std::string& address,
                         const std::shared_ptr<security::CertificateStore>& certificates)
    : stub_(std::make_unique<Stub>(
          Stub{address, v1::Group::NewStub(MakeChannel(address, certificates))})) {}

GroupClient::GroupClient(GroupClient&&) noexcept = default;
GroupClient::~GroupClient() = default;

absl::StatusOr<GroupDescription> GroupClient::Describe(absl::Duration within) const {
  grpc::ClientContext context;
  SetDeadline(within, context);
  v1::GroupDescription wire;
  BALEEN_RETURN_IF_ERROR(stub_->ToStatus(stub_->group->Describe(&context, {}, &wire)));
  GroupDescription description{.group = wire.group(), .epoch = wire.epoch()};
  auto placement = PlacementOf(wire.placement());
  if (!placement.ok()) return Lost(std::string(placement.status().message()));
  auto counts = CountsOf(wire, *placement);
  if (!counts.ok()) return Lost(std::string(counts.status().message()));
  description.placement = *std::move(placement);
  description.counts = *std::move(counts);
  return description;
}

absl::StatusOr<std::uint64_t> GroupClient::Place(const worker::GroupPlacement& placement,
                                                 absl::Duration within) const {
  v1::PlaceExpertsRequest request;
  for (const worker::LayerPlacement& layer : placement.layers) {
    request.add_layers()->mutable_expert_of_slot()->Assign(layer.expert_of_slot().begin(),
                                                           layer.expert_of_slot().end());
  }
  grpc::ClientContext context;
  SetDeadline(within, context);
  v1::PlaceExpertsReply reply;
  BALEEN_RETURN_IF_ERROR(stub_->ToStatus(stub_->group->Place(&context, request, &reply)));
  return reply.placement_version();
}

}  // namespace baleen::cli
