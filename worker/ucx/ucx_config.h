// The settings with which UCX is started here.
#pragma once

#include <ucp/api/ucp.h>

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace baleen::worker {

// UNAVAILABLE: "UCX: <what>: <what UCX says>".
absl::Status FromUcx(std::string_view what, ucs_status_t status);

struct UcxConfigRelease {
  void operator()(ucp_config_t* config) const { ucp_config_release(config); }
};
using UcxConfig = std::unique_ptr<ucp_config_t, UcxConfigRelease>;

// Takes UCX's log in and reads its settings. A user's environment goes first; for what it leaves
// alone: dead peers are found within seconds, and only the `transports` given may be used, a list
// as in UCX_TLS, if it is not empty.
absl::StatusOr<UcxConfig> ReadUcxConfig(const std::string& transports = "");

}  // namespace baleen::worker
