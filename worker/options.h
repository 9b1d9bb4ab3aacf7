// Everything that baleen-worker can be told, in one place: flag --kv-blocks or environment
// BALEEN_KV_BLOCKS.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/process/command_line.h"
#include "security/transport.h"
#include "worker/engine/rules/role.h"

namespace baleen::worker {

// How the rank works with the others of its group.
struct GroupOptions {
  std::uint32_t ranks = 1;  // of the group; 1 = this rank holds all experts
  // Where rank 0 listens and the others join: host:port, or unix-abstract:NAME.
  std::string leader;
  bool fp8_dispatch = false;           // token rows travel in FP8: changes the arithmetic
  std::uint32_t micro_batch_rows = 0;  // from so many rows of a rank on, steps overlap in two parts
  absl::Duration join_max = absl::Minutes(10);
  absl::Duration step_wait_max = absl::Seconds(5);  // for a peer, within a step

  // Of rank 0.
  std::uint32_t redundant_experts = 0;
  std::uint32_t nodes = 1;                      // machines that the ranks are on, evenly, in order
  std::string placement_file;                   // empty: contiguous
  absl::Duration rebalance = absl::Minutes(5);  // zero: never; without redundant experts never
};

struct WorkerOptions {
  // What it is.
  std::string model_directory;
  Role role = Role::kMixed;
  std::uint32_t group = 0;
  std::uint32_t rank = 0;

  GroupOptions parallel;

  // Whom it talks to.
  std::vector<std::string> routers;  // host:port each
  // What it presents to routers and ranks, and whose certificates it believes; empty: plaintext.
  security::CertificateFiles internal;
  bool insecure_internal = false;  // plaintext beyond this machine, too

  // How much it takes on.
  std::uint32_t kv_blocks = 0;          // of 64 tokens; 0 = from the memory there is
  std::uint32_t sequences_max = 64;     // that hold KV at a time
  std::uint32_t step_tokens_max = 512;  // prompt tokens computed in one step
  bool prefix_cache = true;             // keep KV for prompts that begin alike

  // How it runs.
  process::ProcessOptions process;

  // "role-group.rank"
  std::string WorkerName() const;
};

// Parses and validates. INVALID_ARGUMENT names the flag and the limit in one line.
absl::StatusOr<WorkerOptions> ParseOptions(int argc, const char* const* argv);

}  // namespace baleen::worker
