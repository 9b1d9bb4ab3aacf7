// What UCX finds on this machine, for people: `baleen doctor`.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace baleen::worker {

struct UcxReport {
  std::string version;                  // of the library at run time: "1.13.1"
  std::vector<std::string> transports;  // "posix", "tcp", ...: ascending, each once
  std::string chosen;                   // UCX_TLS of the environment; empty = UCX chooses among all
};

// Asks every component of UCX. INTERNAL when it can not be asked.
absl::StatusOr<UcxReport> ReportUcx();

}  // namespace baleen::worker
