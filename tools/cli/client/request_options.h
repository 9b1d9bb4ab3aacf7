// The options of a request, the same for every command that sends one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/baleen/v1/inference.pb.h"

namespace CLI {
class App;
class Validator;
}  // namespace CLI

namespace baleen::cli {

// process::WholeNumber without a description of itself: the help has no room for it, the error says
// it.
CLI::Validator WholeNumber(std::uint64_t least, std::uint64_t most);

// What is not given is left to the router, which checks ranges for all clients.
struct RequestOptions {
  std::optional<float> temperature;
  std::uint32_t top_k = 0;
  std::optional<float> top_p;
  std::optional<std::uint64_t> seed;
  std::optional<std::uint32_t> max_tokens;
  std::uint32_t timeout_seconds = 600;  // for the whole reply

  absl::Duration within() const { return absl::Seconds(timeout_seconds); }
};

// --temperature, --top-k, --top-p, --seed, --max-tokens, --timeout-seconds.
void AddRequestOptions(CLI::App& command, RequestOptions& options);

void Fill(const RequestOptions& options, v1::SamplingParams& sampling, v1::StopParams& stop);

// Where a router is, and how to come in.
struct RouterEndpoint {
  std::string address;       // host:port; empty = BALEEN_ROUTER
  std::string tls_ca_file;   // PEM; empty = plaintext
  std::string api_key_file;  // holds nothing but the key; empty = none
};

// --router, --tls-ca, --api-key-file.
void AddRouterOptions(CLI::App& command, RouterEndpoint& endpoint);

// `given`, else the environment's BALEEN_ROUTER; INVALID_ARGUMENT if there is neither.
absl::StatusOr<std::string> RouterAddress(const std::string& given);

// A text that is not UTF-8 can not be put into a message at all, so the router can not refuse it:
// INVALID_ARGUMENT names `what`.
absl::Status CheckUtf8(std::string_view what, std::string_view text);

// "1,2,3" to ids. INVALID_ARGUMENT names the entry that is no 32-bit number. At most
// kContextTokensMax entries.
absl::StatusOr<std::vector<std::int32_t>> ParseTokenIds(std::string_view text);

}  // namespace baleen::cli
