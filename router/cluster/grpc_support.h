// The few things that every gRPC server here needs.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace baleen::router {

// Code and message; the codes are the same numbers.
grpc::Status ToGrpc(const absl::Status& status);

// Limits that both ports share: message size, pings, no compression (a small message could unpack
// to a large one), no second listener on the port.
void LimitServer(grpc::ServerBuilder& builder);

// "host:port" split at the last colon. INVALID_ARGUMENT names `what` and the address.
absl::StatusOr<std::string> HostOf(const std::string& what, const std::string& address);

// gRPC's own log lines, and those of its messages' parser, go to observability/base/log.h, at debug
// level: what matters is in the statuses, and a client must not be able to write lines here.
void QuietGrpcLog();

}  // namespace baleen::router
