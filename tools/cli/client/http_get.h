// Fetches a metrics page: HTTP/1.0 GET over TCP, small and bounded.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace baleen::cli {

// Body of http://`address``path`. `address` is host:port with a numeric or resolvable host;
// "[::1]:80" for IPv6. UNAVAILABLE when nobody answers, DEADLINE_EXCEEDED after `within`, INTERNAL
// for an answer that is no 200 or larger than 4 MiB.
absl::StatusOr<std::string> HttpGet(const std::string& address, std::string_view path,
                                    absl::Duration within);

// Value of the sample `series` (a name, or name and labels exactly as on the page) in Prometheus
// text format; nullopt = not there.
std::optional<double> SampleOf(std::string_view page, std::string_view series);

}  // namespace baleen::cli
