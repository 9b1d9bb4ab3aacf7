#include "security/authorization/authorization.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "observability/base/status_macros.h"
#include "proto/contract/status.h"

namespace baleen::security {
namespace {

using contract::MakeStatus;
using contract::Reason;

constexpr std::array kTable = {
    // The leader of a group takes ranks in, and lets tools read and change the placement.
    MethodRule{"/baleen.v1.Group/Describe", Port::kGroupLeader, Who::kWorkerOrRouter},
    MethodRule{"/baleen.v1.Group/Join", Port::kGroupLeader, Who::kWorker},
    MethodRule{"/baleen.v1.Group/Place", Port::kGroupLeader, Who::kWorkerOrRouter},
    MethodRule{"/baleen.v1.Inference/Chat", Port::kClients, Who::kKeyHolder},
    MethodRule{"/baleen.v1.Inference/Generate", Port::kClients, Who::kKeyHolder},
    MethodRule{"/baleen.v1.Inference/ListModels", Port::kClients, Who::kKeyHolder},
    MethodRule{"/baleen.v1.Inference/Tokenize", Port::kClients, Who::kKeyHolder},
    MethodRule{"/baleen.v1.Worker/Attach", Port::kWorkers, Who::kWorker},
    // Probes of a kubelet or a load balancer carry no key, and learn no more than "serving".
    MethodRule{"/grpc.health.v1.Health/Check", Port::kClients, Who::kAnyone},
    MethodRule{"/grpc.health.v1.Health/Watch", Port::kClients, Who::kAnyone},
    MethodRule{"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Port::kClients,
               Who::kKeyHolder},
};

constexpr bool IsSorted() {
  for (std::size_t i = 1; i < kTable.size(); ++i) {
    if (!(kTable[i - 1].path < kTable[i].path)) return false;
  }
  return true;
}
static_assert(IsSorted(), "RuleOf searches by halves");

const MethodRule* RuleOf(std::string_view path) {
  const auto* const rule =
      std::lower_bound(kTable.begin(), kTable.end(), path,
                       [](const MethodRule& a, std::string_view b) { return a.path < b; });
  return rule != kTable.end() && rule->path == path ? rule : nullptr;
}

// The caller's words are not repeated: they may be anything.
absl::Status NotServed() { return absl::UnimplementedError("this port does not have that method"); }

absl::Status CheckRole(const PortRules& rules, const CallFacts& call, Who who) {
  if (!rules.own.has_value()) return absl::OkStatus();
  if (call.peer == nullptr) {
    return MakeStatus(Reason::kUnauthenticated, "a certificate of this cluster is needed");
  }
  if (!call.peer->ok()) {
    return MakeStatus(Reason::kPermissionDenied, std::string(call.peer->status().message()));
  }
  const Identity& peer = **call.peer;
  const bool as_router = who == Who::kWorkerOrRouter && peer.role == Role::kRouter;
  const absl::Status checked =
      CheckPeer(*rules.own, peer, as_router ? Role::kRouter : Role::kWorker);
  if (checked.ok()) return checked;
  return MakeStatus(Reason::kPermissionDenied, std::string(checked.message()));
}

}  // namespace

std::span<const MethodRule> AuthorizationTable() { return kTable; }

absl::Status Authorize(const PortRules& rules, const CallFacts& call) {
  const MethodRule* const rule = RuleOf(call.path);
  if (rule == nullptr || rule->port != rules.port) return NotServed();
  switch (rule->who) {
    case Who::kAnyone:
      return absl::OkStatus();
    case Who::kKeyHolder:
      return rules.check_key == nullptr ? absl::OkStatus() : rules.check_key(call.authorization);
    case Who::kWorker:
    case Who::kWorkerOrRouter:
      return CheckRole(rules, call, rule->who);
  }
  return NotServed();
}

}  // namespace baleen::security
