// baleen.v1.Worker messages to and from the plain values of dispatch. What comes in is checked
// against its limits: lists of one length, ids in range, numbers finite. A worker that breaks them
// is not trusted with anything else: its stream ends.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/baleen/v1/worker.pb.h"
#include "router/dispatch/messages.h"
#include "router/policy/cluster_view.h"

namespace baleen::router {

struct WelcomeFrame {
  std::uint64_t router = 0;
  std::uint32_t heartbeat_ms = 0;
  std::uint32_t lease_ms = 0;
};

// INVALID_ARGUMENT for a role that does not exist. Other fields: CheckWorkerInfo.
absl::StatusOr<WorkerInfo> FromWire(const v1::Hello& hello);

LoadReport FromWire(const v1::LoadReport& load);

// INVALID_ARGUMENT names the list and the limit.
absl::StatusOr<std::vector<TokenFrame>> FromWire(const v1::StepOutput& step,
                                                 const WorkerInfo& from);
absl::StatusOr<PromptLogprobsFrame> FromWire(const v1::PromptLogprobs& logprobs,
                                             const WorkerInfo& from);
absl::StatusOr<CacheEventsFrame> FromWire(const v1::CacheEvents& events);
absl::StatusOr<EndedFrame> FromWire(const v1::Ended& ended);

v1::RouterMessage ToWire(const WelcomeFrame& welcome);
v1::RouterMessage ToWire(const RouterFrame& frame);

}  // namespace baleen::router
