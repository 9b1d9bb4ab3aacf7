#include "tools/cli/commands/placement_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <utility>
#include <vector>

#include "observability/base/clock.h"
#include "observability/base/status_macros.h"
#include "observability/process/command_line.h"
#include "security/certificates/certificate_store.h"
#include "tools/cli/client/request_options.h"
#include "tools/cli/cluster/spec/certificate_paths.h"
#include "tools/cli/placement/counts_file.h"
#include "tools/cli/placement/group_client.h"
#include "tools/cli/placement/report.h"
#include "tools/cli/session/exit_code.h"
#include "worker/group/rules/placement_file.h"

namespace baleen::cli {
namespace {

constexpr absl::Duration kLeaderWait = absl::Seconds(10);

absl::Status CheckOptions(const PlacementOptions& options) {
  if (options.counts_file.empty() == options.group_leader.empty()) {
    return absl::InvalidArgumentError("give one of --counts and --group-leader");
  }
  const bool of_group = !options.group_leader.empty();
  if (!of_group && (options.apply || !options.save_counts_file.empty())) {
    return absl::InvalidArgumentError("--apply and --save-counts need --group-leader");
  }
  if (!of_group && !options.ranks) {
    return absl::InvalidArgumentError("--counts needs --ranks: how many are to share the experts?");
  }
  return absl::OkStatus();
}

// What there is now: counts, and the placement that the group has, or would start with.
struct Measured {
  worker::PlacementShape shape;  // of the placement to come
  worker::ExpertCounts counts;
  worker::GroupPlacement before;
};

worker::PlacementShape ShapeOf(const PlacementOptions& options, std::size_t experts,
                               const worker::PlacementShape& otherwise) {
  const auto number = [](std::uint32_t n) { return static_cast<std::int32_t>(n); };
  return {.experts = number(experts),
          .ranks = options.ranks ? number(*options.ranks) : otherwise.ranks,
          .redundant_experts = options.redundant_experts ? number(*options.redundant_experts)
                                                         : otherwise.redundant_experts,
          .expert_groups = number(options.expert_groups),
          .nodes = number(options.nodes)};
}

absl::StatusOr<Measured> FromFile(const PlacementOptions& options) {
  Measured measured;
  BALEEN_ASSIGN_OR_RETURN(measured.counts, ReadCountsFile(options.counts_file));
  measured.shape = ShapeOf(options, measured.counts[0].size(), {});
  BALEEN_ASSIGN_OR_RETURN(measured.before, ContiguousFor(measured.shape, measured.counts.size()));
  return measured;
}

// Tools come with the router's certificate: it is the one that may ask and place and not join.
absl::StatusOr<GroupClient> ClientOf(const PlacementOptions& options) {
  const std::string& folder = options.certificates_folder;
  if (folder.empty()) return GroupClient(options.group_leader);
  BALEEN_ASSIGN_OR_RETURN(
      const auto certificates,
      security::CertificateStore::Open({.certificate = CertificatePath(folder, kRouterName),
                                        .key = KeyPath(folder, kRouterName),
                                        .authority = CertificatePath(folder, kAuthorityName)},
                                       SystemClock()));
  return GroupClient(options.group_leader, certificates);
}

absl::StatusOr<Measured> FromGroup(const PlacementOptions& options) {
  BALEEN_ASSIGN_OR_RETURN(const GroupClient client, ClientOf(options));
  BALEEN_ASSIGN_OR_RETURN(GroupDescription group, client.Describe(kLeaderWait));
  const worker::PlacementShape has = group.placement.shape;
  Measured measured{.shape = ShapeOf(options, static_cast<std::size_t>(has.experts), has),
                    .counts = std::move(group.counts),
                    .before = std::move(group.placement)};
  const bool fits = measured.shape.ranks == has.ranks &&
                    measured.shape.redundant_experts == has.redundant_experts;
  if (options.apply && !fits) {
    return absl::InvalidArgumentError(fmt::format(
        "--apply: the group has {} ranks and {} redundant experts, the placement {} and {}",
        has.ranks, has.redundant_experts, measured.shape.ranks, measured.shape.redundant_experts));
  }
  return measured;
}

// In the order in which a failure loses least: nothing is adopted that could not be written down.
absl::Status Deliver(const PlacementOptions& options, const Measured& measured,
                     const worker::GroupPlacement& placement) {
  if (!options.save_counts_file.empty()) {
    BALEEN_RETURN_IF_ERROR(WriteCountsFile(options.save_counts_file, measured.counts));
  }
  if (!options.output_file.empty()) {
    BALEEN_RETURN_IF_ERROR(worker::WritePlacementFile(options.output_file, placement));
  }
  const BalanceReport report = CompareBalance(measured.counts, measured.before, placement);
  WriteAll(STDOUT_FILENO,
           options.json ? ToJson(report) + "\n" : ToText(report, Style(ColoursOn(STDOUT_FILENO))));
  if (!options.apply) return absl::OkStatus();
  BALEEN_ASSIGN_OR_RETURN(const GroupClient client, ClientOf(options));
  BALEEN_ASSIGN_OR_RETURN(const std::uint64_t version, client.Place(placement, kLeaderWait));
  if (!options.json) {
    WriteAll(STDOUT_FILENO, fmt::format("\nThe group adopts it as version {}.\n", version));
  }
  return absl::OkStatus();
}

// A placement for no load at all would undo one that was made for some.
absl::Status CheckMeasured(const PlacementOptions& options, const Measured& measured) {
  const auto any = [](const std::vector<std::uint64_t>& layer) {
    return std::ranges::any_of(layer, [](std::uint64_t tokens) { return tokens > 0; });
  };
  if (std::ranges::any_of(measured.counts, any)) return absl::OkStatus();
  if (options.group_leader.empty()) {
    return absl::InvalidArgumentError(options.counts_file + ": all counts are 0");
  }
  return absl::FailedPreconditionError(fmt::format(
      "leader {}: no tokens counted yet; counts follow requests within 5 s", options.group_leader));
}

absl::Status Run(const PlacementOptions& options) {
  BALEEN_ASSIGN_OR_RETURN(const Measured measured,
                          options.group_leader.empty() ? FromFile(options) : FromGroup(options));
  BALEEN_RETURN_IF_ERROR(CheckMeasured(options, measured));
  BALEEN_ASSIGN_OR_RETURN(const worker::GroupPlacement placement,
                          BalancedFor(measured.shape, measured.counts));
  return Deliver(options, measured, placement);
}

// What a leader listens on.
std::string CheckLeader(const std::string& text) {
  constexpr std::string_view kUnix = "unix-abstract:";
  if (text.starts_with(kUnix) && text.size() > kUnix.size()) return "";
  if (process::CheckHostPort("--group-leader", text, 1).ok()) return "";
  return fmt::format("'{}' is neither host:port nor {}NAME", text.substr(0, 100), kUnix);
}

}  // namespace

void AddPlacementOptions(CLI::App& command, PlacementOptions& options) {
  const auto add = [&command](const char* name, auto& value, const char* type,
                              const char* description) {
    return command.add_option(name, value, description)->type_name(type);
  };
  add("--counts", options.counts_file, "FILE", "Tokens by layer and expert; - reads them");
  add("--group-leader", options.group_leader, "ADDRESS", "Or: a running group, as 'up' prints it")
      ->check(CLI::Validator([](const std::string& text) { return CheckLeader(text); }, ""));
  add("--certs", options.certificates_folder, "DIR", "With --group-leader: of 'baleen certs'");
  add("--ranks", options.ranks, "N", "Ranks of the group [as it has]")
      ->check(WholeNumber(1, worker::kGroupRanksMax));
  add("--redundant-experts", options.redundant_experts, "N", "Replicas [as the group has, or 0]")
      ->check(WholeNumber(0, worker::kExpertsMax));
  add("--nodes", options.nodes, "N", "Machines that the ranks are on, evenly [1]")
      ->check(WholeNumber(1, worker::kGroupRanksMax));
  add("--expert-groups", options.expert_groups, "N", "n_group of the model's gate [1]")
      ->check(WholeNumber(1, worker::kExpertsMax));
  add("--output", options.output_file, "FILE", "Write the placement, for --placement");
  add("--save-counts", options.save_counts_file, "FILE", "Write the group's counts, for --counts");
  command.add_flag("--apply", options.apply, "Let the running group adopt it");
  command.add_flag("--json", options.json, "The figures as one line of JSON");
}

int RunPlacement(const PlacementOptions& options) {
  if (const absl::Status valid = CheckOptions(options); !valid.ok()) return ExitWithUsage(valid);
  return ExitWithMessage(Run(options));
}

}  // namespace baleen::cli
