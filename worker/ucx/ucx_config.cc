#include "worker/ucx/ucx_config.h"

#include <fmt/format.h>

#include <cstdlib>

#include "worker/ucx/ucx_log.h"

namespace baleen::worker {
namespace {

// Settings of ours for UCX; a user's environment variable of the same name goes first.
struct Setting {
  const char* name;
  const char* value;
  const char* variable;
  bool tcp;  // meant for TCP
};

// Within a machine this leaves TCP, although UCX can also report dead peers over shared memory
// (UCX_POSIX_ERROR_HANDLING=y), at twice the speed: there, all senders write into one queue of the
// receiver, and one that is killed, or stopped, between taking a place and filling it blocks the
// queue for everybody for ever. Over TCP a dead peer costs its own messages and nothing else.
constexpr Setting kSettings[] = {
    // Dead peers are found within seconds, well before leases run out. The defaults take 20 s. (UCX
    // takes the settings of a transport without its name.)
    {"KEEPALIVE_INTERVAL", "0.5s", "UCX_KEEPALIVE_INTERVAL", false},
    {"KEEPIDLE", "2s", "UCX_TCP_KEEPIDLE", true},
    {"KEEPINTVL", "1s", "UCX_TCP_KEEPINTVL", true},
    {"KEEPCNT", "3", "UCX_TCP_KEEPCNT", true},
};

// UCX warns of settings for transports that the choice leaves out.
bool TcpAllowed(const char* chosen) {
  if (chosen == nullptr) return true;
  const std::string_view transports(chosen);
  const bool named = transports.find("tcp") != std::string_view::npos ||
                     transports.find("all") != std::string_view::npos;
  return named != transports.starts_with('^');
}

}  // namespace

absl::Status FromUcx(std::string_view what, ucs_status_t status) {
  return absl::UnavailableError(fmt::format("UCX: {}: {}", what, ucs_status_string(status)));
}

// UCX reads its settings from the environment by itself; these are defaults of ours for settings
// that the user left alone, which is why the environment is looked at here and not among our own
// options.
absl::StatusOr<UcxConfig> ReadUcxConfig(const std::string& transports) {
  TakeUcxLog();
  ucp_config_t* raw = nullptr;
  if (const ucs_status_t status = ucp_config_read(nullptr, nullptr, &raw); status != UCS_OK) {
    return FromUcx("reading the configuration", status);
  }
  UcxConfig config(raw);
  const char* chosen = std::getenv("UCX_TLS");
  if (chosen == nullptr && !transports.empty()) {
    chosen = transports.c_str();
    const auto status = ucp_config_modify(config.get(), "TLS", chosen);
    if (status != UCS_OK) return FromUcx("TLS", status);
  }
  for (const Setting& setting : kSettings) {
    if (std::getenv(setting.variable) != nullptr || (setting.tcp && !TcpAllowed(chosen))) continue;
    const auto status = ucp_config_modify(config.get(), setting.name, setting.value);
    if (status != UCS_OK) return FromUcx(setting.name, status);
  }
  return config;
}

}  // namespace baleen::worker
