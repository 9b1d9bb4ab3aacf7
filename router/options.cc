#include "router/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "observability/base/status_macros.h"

namespace baleen::router {
namespace {

constexpr std::uint32_t kRequestsMaxMax = 100'000;
constexpr std::uint32_t kMegabytesMaxMax = 65'536;
constexpr std::uint32_t kThreadsMax = 64;
constexpr std::size_t kModelsMax = 16;

void Declare(CLI::App& app, RouterOptions& options) {
  const auto add = [&app](const char* flag, auto& value, const char* help) {
    return process::AddOption(app, flag, value, help);
  };
  const auto range = [](std::uint32_t least, std::uint32_t most) {
    return process::WholeNumber(least, most);
  };
  add("--model", options.models, "Model directories (Hugging Face layout), DIR[,DIR]")
      ->required()
      ->delimiter(',');
  add("--listen", options.listen, "Address for clients, host:port")->check(process::HostPort());
  add("--worker-listen", options.worker_listen, "Address for workers, host:port")
      ->check(process::HostPort());
  add("--requests-max", options.requests_max, "Requests inside at once, waiting or running")
      ->check(range(1, kRequestsMaxMax));
  add("--request-megabytes-max", options.request_megabytes_max, "MiB of their messages together")
      ->check(range(4, kMegabytesMaxMax));
  process::AddSeconds(app, "--request-seconds-max", options.request_wait_max,
                      "The longest deadline of a request", 1);
  process::AddSeconds(app, "--queue-seconds-max", options.queue_wait_max,
                      "The longest wait for a free worker");
  add("--client-threads", options.client_threads, "Threads that serve clients' streams")
      ->check(range(1, kThreadsMax));
  add("--text-threads", options.text_threads, "Threads that tokenize")
      ->check(range(1, kThreadsMax));
  process::AddProcessOptions(app, options.process);
}

}  // namespace

absl::StatusOr<RouterOptions> ParseOptions(int argc, const char* const* argv) {
  RouterOptions options;
  CLI::App app(
      "baleen-router: the front door of a Baleen cluster. Clients call it, workers dial in.",
      "baleen-router");
  Declare(app, options);
  BALEEN_RETURN_IF_ERROR(process::Parse(app, argc, argv, options.process));
  if (options.models.size() > kModelsMax) {
    return absl::InvalidArgumentError(
        fmt::format("--model: {} directories, the most are {}", options.models.size(), kModelsMax));
  }
  return options;
}

}  // namespace baleen::router
