#include "worker/group_rank.h"

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "observability/base/clock.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "observability/process/signals.h"
#include "worker/expert_parallel/ucx/ucx_endpoint.h"
#include "worker/group/rules/placement_file.h"
#include "worker/host.h"

namespace baleen::worker {
namespace {

constexpr absl::Duration kLook = absl::Milliseconds(20);

// Asks `answer` again and again until there is one. It comes: member and leader bound their waits.
// CANCELLED when the process is asked to stop meanwhile.
template <typename Answer>
auto Await(Answer answer) -> typename decltype(answer())::value_type {
  for (bool stop = false;; stop = process::AwaitStopSignal(kLook)) {
    // First: a group that can not be asks for the stop itself, and its reason is the answer.
    if (auto value = answer(); value.has_value()) return *std::move(value);
    if (stop) return absl::CancelledError("asked to stop before the group had formed");
  }
}

// What must be equal on all ranks, besides model and build.
GroupTerms TermsOf(const WorkerOptions& options, const ModelDirectory& directory,
                   const AllToAllShape& shape) {
  return {.group = fmt::format("{}-{}", NameOf(options.role), options.group),
          .ranks = options.parallel.ranks,
          .model_digest = directory.info().digest,
          .build = fmt::format("{} {}", BALEEN_VERSION, BuildId()),
          .facts = {{"arithmetic", directory.info().arithmetic},
                    {"rows_max", fmt::format("{}", shape.rows_max)},
                    {"row_bytes", fmt::format("{}", shape.row_bytes)},
                    {"micro_batch_rows", fmt::format("{}", options.parallel.micro_batch_rows)}}};
}

PlacementShape ShapeOf(const WorkerOptions& options, const ModelDirectory& directory) {
  const GroupOptions& group = options.parallel;
  return PlacementShapeOf(directory.config(), static_cast<std::int32_t>(group.ranks),
                          static_cast<std::int32_t>(group.redundant_experts),
                          static_cast<std::int32_t>(group.nodes));
}

// A placement to start with. INVALID_ARGUMENT: it is of another shape.
absl::StatusOr<std::vector<LayerPlacement>> ReadPlacement(const std::string& path,
                                                          const PlacementShape& shape) {
  BALEEN_ASSIGN_OR_RETURN(GroupPlacement placement, ReadPlacementFile(path));
  const PlacementShape& file = placement.shape;
  if (file.experts != shape.experts || file.ranks != shape.ranks ||
      file.redundant_experts != shape.redundant_experts) {
    return absl::InvalidArgumentError(fmt::format(
        "--placement {}: of {} experts, {} redundant, on {} ranks; this group has {}, {}, {}", path,
        file.experts, file.redundant_experts, file.ranks, shape.experts, shape.redundant_experts,
        shape.ranks));
  }
  return std::move(placement.layers);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GroupRank>> GroupRank::Join(const WorkerOptions& options,
                                                           const ModelDirectory& directory,
                                                           const StepLimits& limits,
                                                           const GroupRankParts& parts) {
  const PlacementShape placement = ShapeOf(options, directory);
  BALEEN_RETURN_IF_ERROR(CheckPlacementShape(placement));
  AllToAllShape shape =
      ExchangeShapeOf(directory.config(), limits, placement, directory.dispatch());
  shape.wait_max = options.parallel.step_wait_max;
  BALEEN_RETURN_IF_ERROR(CheckAllToAllShape(shape));
  std::unique_ptr<GroupRank> rank(new GroupRank(options, placement, shape));
  rank->certificates_ = parts.certificates;
  const GroupTerms terms = TermsOf(options, directory, shape);
  rank->reports_ = std::make_unique<GroupReports>(
      terms, options.rank, static_cast<std::size_t>(MoeLayersOf(directory.config())), rank->meter_,
      parts.registry);
  if (options.rank == 0) BALEEN_RETURN_IF_ERROR(rank->Listen(directory, terms));
  rank->AskIn(directory, terms, parts.incarnation);
  BALEEN_RETURN_IF_ERROR(rank->runtime_->Join());
  return rank;
}

absl::Status GroupRank::Listen(const ModelDirectory& directory, const GroupTerms& terms) {
  const GroupOptions& group = options_.parallel;
  GroupServiceOptions service{
      .listen = group.leader,
      .certificates = certificates_,
      .roster = {.terms = terms,
                 .first_number =
                     static_cast<std::uint64_t>(absl::ToUnixMicros(SystemClock().Wall())),
                 .join_max = group.join_max},
      .shape = placement_shape_,
      .layers = ContiguousModelPlacement(directory.config(), placement_shape_).layers};
  if (group.redundant_experts > 0) service.roster.rebalance_every = group.rebalance;
  if (!group.placement_file.empty()) {
    BALEEN_ASSIGN_OR_RETURN(service.layers, ReadPlacement(group.placement_file, placement_shape_));
  }
  BALEEN_ASSIGN_OR_RETURN(service_, GroupService::Start(std::move(service)));
  log::Info("leading the group", {{"group", terms.group}, {"address", service_->address()}});
  return absl::OkStatus();
}

void GroupRank::AskIn(const ModelDirectory& directory, const GroupTerms& terms,
                      std::uint64_t incarnation) {
  runtime_ = std::make_unique<GroupRuntime>(
      GroupMemberOptions{.leader = service_ ? service_->address() : options_.parallel.leader,
                         .certificates = certificates_,
                         .terms = terms,
                         .rank = options_.rank,
                         .incarnation = incarnation,
                         .experts = static_cast<std::int32_t>(directory.config().n_routed_experts),
                         .moe_layers = static_cast<std::size_t>(MoeLayersOf(directory.config())),
                         .join_max = options_.parallel.join_max});
}

absl::StatusOr<ExpertShard> GroupRank::AwaitShard() {
  BALEEN_ASSIGN_OR_RETURN(placement_, Await([this] { return runtime_->TakeJoined(); }));
  // How many experts are redundant is for the leader to say, and so how many slots there are.
  placement_shape_.redundant_experts = placement_.shape.redundant_experts;
  BALEEN_RETURN_IF_ERROR(CheckPlacementShape(placement_shape_));
  shape_.slots_per_rank = placement_shape_.slots_per_rank();
  return ExpertShard{.rank = static_cast<std::int32_t>(options_.rank),
                     .placement = {.shape = placement_shape_, .layers = placement_.layers}};
}

void GroupRank::Run(ExpertHost& experts, Inbox& inbox) {
  runtime_->Run(
      std::move(placement_),
      {.experts = experts,
       .inbox = inbox,
       .make_endpoint = [this]() -> absl::StatusOr<std::unique_ptr<PendingEndpoint>> {
         return PendingUcxEndpoint::Create(
             {.shape = shape_, .rank = static_cast<std::int32_t>(options_.rank), .meter = &meter_});
       },
       .reports = reports_.get(),
       .on_tick = [this] { Tick(); },
       .on_failed = [](const absl::Status&) { process::RequestStop(); }});
}

void GroupRank::Tick() {
  if (service_) reports_->Show(service_->View());
}

absl::Status GroupRank::AwaitFormed() {
  return Await([this] { return runtime_->Outcome(); });
}

absl::Status GroupRank::failure() const { return runtime_->Outcome().value_or(absl::OkStatus()); }

}  // namespace baleen::worker
