#include "tools/cli/client/request_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>

#include "observability/base/status_macros.h"
#include "observability/process/command_line.h"
#include "proto/contract/limits.h"
#include "proto/contract/status.h"
#include "router/text/utf8.h"

namespace baleen::cli {
namespace {

constexpr std::uint32_t kTimeoutSecondsMax = 24 * 3600;

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\n')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\n')) text.remove_suffix(1);
  return text;
}

absl::Status NotAnId(std::size_t index, std::string_view entry) {
  return absl::InvalidArgumentError(fmt::format(
      "--token-ids entry {} is '{}', which is no 32-bit number", index, entry.substr(0, 40)));
}

}  // namespace

CLI::Validator WholeNumber(std::uint64_t least, std::uint64_t most) {
  return process::WholeNumber(least, most).description("");
}

void AddRequestOptions(CLI::App& command, RequestOptions& options) {
  command.add_option("--max-tokens", options.max_tokens, "Most tokens to generate [what fits]")
      ->type_name("N")
      ->check(WholeNumber(1, contract::kCompletionTokensMax));
  command.add_option("--temperature", options.temperature, "0 = most probable token, to 2 [0]")
      ->type_name("T");
  command.add_option("--top-k", options.top_k, "Choose among the K most probable [0 = all]")
      ->type_name("K")
      ->check(WholeNumber(0, std::numeric_limits<std::uint32_t>::max()));
  command.add_option("--top-p", options.top_p, "Choose among the most probable, to share P [1]")
      ->type_name("P");
  command.add_option("--seed", options.seed, "Same seed, same answer [random]")
      ->type_name("N")
      ->check(WholeNumber(0, std::numeric_limits<std::uint64_t>::max()));
  command
      .add_option("--timeout-seconds", options.timeout_seconds,
                  "Give up on a reply, 1 to 86400 [600]")
      ->type_name("N")
      ->check(WholeNumber(1, kTimeoutSecondsMax));
}

void Fill(const RequestOptions& options, v1::SamplingParams& sampling, v1::StopParams& stop) {
  if (options.temperature) sampling.set_temperature(*options.temperature);
  sampling.set_top_k(options.top_k);
  if (options.top_p) sampling.set_top_p(*options.top_p);
  if (options.seed) sampling.set_seed(*options.seed);
  if (options.max_tokens) stop.set_max_tokens(*options.max_tokens);
}

void AddRouterOptions(CLI::App& command, RouterEndpoint& endpoint) {
  const auto from_environment = [](const char* name) -> std::string {
    const char* const value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  endpoint.tls_ca_file = from_environment("BALEEN_TLS_CA");
  endpoint.api_key_file = from_environment("BALEEN_API_KEY_FILE");
  command.add_option("--router", endpoint.address, "gRPC of a cluster [$BALEEN_ROUTER]")
      ->type_name("HOST:PORT")
      ->check(process::HostPort(1));
  command.add_option("--tls-ca", endpoint.tls_ca_file, "Its authority, PEM [$BALEEN_TLS_CA]")
      ->type_name("FILE");
  command.add_option("--api-key-file", endpoint.api_key_file, "A key [$BALEEN_API_KEY_FILE]")
      ->type_name("FILE");
}

absl::StatusOr<std::string> RouterAddress(const std::string& given) {
  const char* environment = std::getenv("BALEEN_ROUTER");
  const std::string address =
      given.empty() && environment != nullptr ? std::string(environment) : given;
  if (address.empty()) {
    return absl::InvalidArgumentError(
        "--router is missing: the host:port that 'baleen up' prints as gRPC");
  }
  BALEEN_RETURN_IF_ERROR(
      process::CheckHostPort(given.empty() ? "BALEEN_ROUTER" : "--router", address, 1));
  return address;
}

absl::Status CheckUtf8(std::string_view what, std::string_view text) {
  const std::size_t bad = router::FindInvalidUtf8(text);
  if (bad == std::string_view::npos) return absl::OkStatus();
  return contract::MakeStatus(contract::Reason::kInvalidRequest,
                              fmt::format("{} is not valid UTF-8 at byte {}", what, bad));
}

absl::StatusOr<std::vector<std::int32_t>> ParseTokenIds(std::string_view text) {
  std::vector<std::int32_t> ids;
  text = Trimmed(text);
  while (!text.empty()) {
    if (ids.size() == contract::kContextTokensMax) {
      return absl::InvalidArgumentError(
          fmt::format("--token-ids has more than {} entries, the largest context",
                      contract::kContextTokensMax));
    }
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view entry = Trimmed(text.substr(0, comma));
    std::int32_t id = 0;
    const auto parsed = std::from_chars(entry.data(), entry.data() + entry.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != entry.data() + entry.size()) {
      return NotAnId(ids.size(), entry);
    }
    ids.push_back(id);
    if (comma + 1 == text.size()) return NotAnId(ids.size(), "");
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return ids;
}

}  // namespace baleen::cli
