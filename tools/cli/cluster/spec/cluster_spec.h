// What a local cluster is made of, and the command line of each of its processes.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/cli/cluster/spec/topology.h"

namespace baleen::cli {

// How the ranks of a group work together; what is not given is left to the worker.
struct GroupSpec {
  // Begins the addresses of the groups' leaders, unlike that of any other cluster on this machine.
  std::string meeting_point = "unix-abstract:baleen";
  std::uint32_t redundant_experts = 0;
  std::string placement_file;  // empty = contiguous
  std::string dispatch;        // "bf16" or "fp8", of every worker: it is part of the arithmetic
  std::optional<std::uint32_t> micro_batch_rows;
  std::optional<std::uint32_t> rebalance_seconds;
  std::optional<std::uint32_t> join_seconds;
  std::optional<std::uint32_t> step_wait_ms;
};

struct ClusterSpec {
  std::string model_directory;
  // Workers of each role.
  Topology prefill;
  Topology decode;
  Topology mixed;
  std::string listen = "127.0.0.1:0";       // gRPC for clients; port 0 = any free one
  std::string http_listen = "127.0.0.1:0";  // HTTP for clients
  std::string metrics_listen =
      "127.0.0.1:0";  // the router's; workers always take a free loopback port
  std::string log_level = "info";
  std::string log_format = "text";
  std::uint32_t drain_seconds = 10;
  // Passed on to every worker when not 0.
  std::uint32_t kv_blocks = 0;
  std::uint32_t sequences_max = 0;
  std::uint32_t step_tokens_max = 0;
  std::string certificates_folder;  // of `baleen certs`, for all connections; empty = plaintext
  std::string api_keys_file;        // empty = no keys
  GroupSpec group;
};

// What clients of a cluster with certificates believe; empty without.
std::string TlsAuthorityOf(const ClusterSpec& spec);

// As baleen-worker takes them.
inline constexpr std::uint32_t kKvBlocksMax = 1u << 30;
inline constexpr std::uint32_t kSequencesMaxMax = 1024;
inline constexpr std::uint32_t kStepTokensMaxMax = 16'384;
inline constexpr std::uint32_t kRedundantExpertsMax = 4096;
inline constexpr std::uint32_t kMicroBatchRowsMax = 1u << 20;
inline constexpr std::uint32_t kStepWaitMsMax = 600'000;
inline constexpr std::uint32_t kSecondsMax = 86'400;

struct RoleTopology {
  std::string_view role;  // "prefill", "decode" or "mixed"
  Topology topology;
};
std::array<RoleTopology, 3> TopologiesOf(const ClusterSpec& spec);

// INVALID_ARGUMENT names the option and its limit.
absl::Status Validate(const ClusterSpec& spec);

enum class ChildKind : std::uint8_t { kRouter, kWorker };

struct ChildSpec {
  ChildKind kind = ChildKind::kWorker;
  std::string name;  // "router", or as the worker calls itself: "prefill-0.0"
  std::string role;  // of a worker: "prefill", "decode" or "mixed"
  std::uint32_t group = 0;
  std::uint32_t rank = 0;
  std::uint32_t ranks = 1;  // of its group
  std::string leader;       // where the ranks of its group meet; empty = it is alone
};

// "prefill-0". Precondition: a worker.
std::string GroupNameOf(const ChildSpec& child);

// The router first, then the workers. Precondition: a valid spec.
std::vector<ChildSpec> ChildrenOf(const ClusterSpec& spec);

// What a process says once it is ready: {"grpc": "127.0.0.1:4711", ...}.
using ReadyLine = std::map<std::string, std::string, std::less<>>;

// Parses the line that `kind` prints: one JSON object of strings with the keys of that kind.
// INVALID_ARGUMENT otherwise.
absl::StatusOr<ReadyLine> ParseReadyLine(ChildKind kind, std::string_view line);

// Arguments of a child. `router` and `own` are the ready lines of the router and of this child's
// previous life; null before there is one. With `own` the child is told to listen where it did
// before, so that addresses stay good across restarts. Precondition: `router` is known for a
// worker.
std::vector<std::string> ArgumentsOf(const ClusterSpec& spec, const ChildSpec& child,
                                     const ReadyLine* router, const ReadyLine* own);

// What a child gets besides our own environment, "NAME=value". The data plane of workers on one
// machine stays on its loopback interface; else UCX would listen on every one. Whoever sets
// UCX_NET_DEVICES or UCX_TLS has chosen.
std::vector<std::string> EnvironmentOf(const ChildSpec& child);

}  // namespace baleen::cli
