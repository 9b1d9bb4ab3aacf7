// The one table of who may call what. Every gRPC server asks it before it reads a message; what is
// not in it is refused. A test fails on a method of any service without an entry.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "security/authorization/identity.h"

namespace baleen::security {

// Where a method is served.
enum class Port : std::uint8_t {
  kClients,      // of the router, for everybody
  kWorkers,      // of the router, for workers
  kGroupLeader,  // of a group's rank 0, for its other ranks and for tools
};

enum class Who : std::uint8_t {
  kAnyone,         // without a key: probes have none
  kKeyHolder,      // who has an API key, when keys are set
  kWorker,         // a certificate of role worker, where certificates are used
  kWorkerOrRouter  // one of either role
};

struct MethodRule {
  std::string_view path;  // as gRPC sends it: "/package.Service/Method"
  Port port;
  Who who;
};

// Every method of every service, sorted by path.
std::span<const MethodRule> AuthorizationTable();

// What a server knows of itself.
struct PortRules {
  Port port = Port::kClients;
  // With certificates: ours. Without, peers have none either: the port is on a loopback address, or
  // was opened to others on purpose.
  std::optional<Identity> own;
  // Null when there are no API keys.
  std::function<absl::Status(std::string_view authorization)> check_key;
};

// What it knows of a call.
struct CallFacts {
  std::string_view path;
  std::string_view authorization;                  // its metadata, "" if there is none
  const absl::StatusOr<Identity>* peer = nullptr;  // of the verified certificate; null without one
};

// OK, or the status to end the call with: UNIMPLEMENTED when the method is not served on this port,
// else kUnauthenticated or kPermissionDenied.
absl::Status Authorize(const PortRules& rules, const CallFacts& call);

}  // namespace baleen::security
