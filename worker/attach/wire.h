// Between the wire (baleen.v1) and the engine's values. Everything that comes in is checked for
// form here; whether the rank can serve it is the engine's business
// (worker/engine/rules/start_check.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/baleen/v1/worker.pb.h"
#include "worker/cache/cache_feed.h"
#include "worker/engine/messages.h"
#include "worker/engine/rules/role.h"

namespace baleen::worker {

// What a worker says about itself: constant while the process lives.
struct WorkerIdentity {
  std::string name;  // "role-group.rank"
  std::uint64_t incarnation = 0;
  Role role = Role::kMixed;
  std::uint32_t group = 0;
  std::uint32_t rank = 0;
  ModelInfo model;
  std::string model_directory;
  std::uint32_t kv_blocks_total = 0;
  std::uint32_t sequences_max = 0;
  std::uint32_t step_tokens_max = 0;
  std::string data_plane_address;  // empty without a data plane
  std::string metrics_address;
};

namespace wire {

v1::WorkerMessage HelloMessage(const WorkerIdentity& identity);
v1::WorkerMessage LoadMessage(const LoadReport& load);
// Precondition: there are tokens.
v1::WorkerMessage StepMessage(const StepReport& report);
// Some messages of at most contract::kPromptLogprobsPerMessage entries each.
std::vector<v1::WorkerMessage> PromptLogprobsMessages(const PromptLogprobsOutput& output);
v1::WorkerMessage EndedMessage(const EndedOutput& ended);
// Precondition: at most contract::kCacheHashesPerMessage hashes.
v1::WorkerMessage CacheMessage(const CacheChanges& changes);

contract::RequestKey KeyOf(const v1::RequestKey& key);

// INVALID_ARGUMENT (with a contract::Reason) for an unknown leg, a bad key, and for lists or texts
// that are too long or do not fit each other. Takes the texts out of `start`.
absl::StatusOr<StartCommand> ToStart(v1::Start& start, LinkId link);

// The times of a Welcome, held within sane bounds whatever the router says. INVALID_ARGUMENT
// without a router number.
struct WelcomeTerms {
  std::uint64_t router = 0;
  absl::Duration heartbeat;
};
absl::StatusOr<WelcomeTerms> ToTerms(const v1::Welcome& welcome);

}  // namespace wire
}  // namespace baleen::worker
