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

void DeclareSecurity(CLI::App& app, RouterOptions& options) {
  const auto add = [&app](const char* flag, std::string& value, const char* help) {
    process::AddOption(app, flag, value, help)->type_name("FILE");
  };
  add("--api-keys-file", options.access.api_keys_file, "Who may call; none: everybody");
  add("--cache-secret-file", options.access.cache_secret_file,
      "Keys the prefix cache, for routers to share it; none: random");
  add("--tls-cert", options.tls.certificate, "Certificate for clients, PEM");
  add("--tls-key", options.tls.key, "Its key, PEM");
  add("--internal-cert", options.internal.certificate, "Certificate for workers, PEM");
  add("--internal-key", options.internal.key, "Its key, PEM");
  add("--internal-ca", options.internal.authority, "Whose certificates to believe, PEM");
  app.add_flag("--insecure-internal", options.insecure_internal,
               "Workers without certificates beyond this machine, too")
      ->envname(process::EnvironmentNameOf("--insecure-internal"));
}

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
  add("--http-listen", options.http_listen, "Address for clients of the OpenAI API, host:port")
      ->check(process::HostPort());
  add("--worker-listen", options.worker_listen, "Address for workers, host:port")
      ->check(process::HostPort());
  add("--requests-max", options.requests_max, "Requests inside at once, waiting or running")
      ->check(range(1, kRequestsMaxMax));
  add("--request-megabytes-max", options.request_megabytes_max, "MiB of their messages together")
      ->check(range(4, kMegabytesMaxMax));
  add("--memory-megabytes-max", options.memory_megabytes_max,
      "MiB of this process, near which requests are refused; 0: the control group's limit")
      ->check(range(0, kMegabytesMaxMax * 16));
  process::AddSeconds(app, "--request-seconds-max", options.request_wait_max,
                      "The longest deadline of a request", 1);
  process::AddSeconds(app, "--queue-seconds-max", options.queue_wait_max,
                      "The longest wait for a free worker");
  add("--client-threads", options.client_threads, "Threads that serve clients' streams")
      ->check(range(1, kThreadsMax));
  add("--http-threads", options.http_threads, "Threads that serve clients of the OpenAI API")
      ->check(range(1, kThreadsMax));
  add("--text-threads", options.text_threads, "Threads that tokenize")
      ->check(range(1, kThreadsMax));
  DeclareSecurity(app, options);
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
  BALEEN_RETURN_IF_ERROR(
      security::CheckCertificateFlags("--tls", options.tls, /*with_authority=*/false));
  BALEEN_RETURN_IF_ERROR(
      security::CheckCertificateFlags("--internal", options.internal, /*with_authority=*/true));
  return options;
}

}  // namespace baleen::router
