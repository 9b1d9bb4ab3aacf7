// Everything that baleen-router can be told, in one place: flag --requests-max or environment
// BALEEN_REQUESTS_MAX.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/process/command_line.h"
#include "router/access/access.h"
#include "security/transport.h"

namespace baleen::router {

struct RouterOptions {
  // What it serves: model directories, of which it reads tokenizer and chat template. A model's
  // name is the last component.
  std::vector<std::string> models;

  // Where. Port 0 picks a free one.
  std::string listen = "127.0.0.1:0";         // clients, gRPC
  std::string http_listen = "127.0.0.1:0";    // clients, the OpenAI API
  std::string worker_listen = "127.0.0.1:0";  // workers dial in here

  // How much it takes on.
  std::uint32_t requests_max = 1024;                  // inside at once, waiting or running
  std::uint32_t request_megabytes_max = 256;          // of their messages together
  absl::Duration request_wait_max = absl::Hours(1);   // the longest deadline of a request
  absl::Duration queue_wait_max = absl::Seconds(30);  // the longest wait for a free worker
  std::uint32_t memory_megabytes_max = 0;  // of the process; 0: its control group's limit, if any

  // Who may call, and how connections are protected.
  AccessOptions access;
  security::CertificateFiles tls;       // of the clients' ports, without an authority
  security::CertificateFiles internal;  // of the workers' port; empty: plaintext
  bool insecure_internal = false;       // plaintext beyond this machine, too

  // How it runs.
  std::uint32_t client_threads = 1;
  std::uint32_t http_threads = 1;
  std::uint32_t text_threads = 2;
  process::ProcessOptions process = {.name = "router"};
};

// Parses and validates. INVALID_ARGUMENT names the flag and the limit in one line.
absl::StatusOr<RouterOptions> ParseOptions(int argc, const char* const* argv);

}  // namespace baleen::router
