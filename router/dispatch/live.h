// A request inside dispatch, from Submit to its ending.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "router/admission/fair_queue.h"
#include "router/admission/wait_estimate.h"
#include "router/dispatch/messages.h"
#include "router/dispatch/reply_order.h"
#include "router/dispatch/worker_table.h"

namespace baleen::router {

// Where the requests of one model wait.
struct WaitingRoom {
  FairQueue queue;
  WaitEstimate estimate;
};

struct OpenLeg {
  WorkerId worker;
  Grant grant;
  bool open = false;  // started, and its Ended has not come
};

struct Finish {
  FinishReason reason;
  std::uint32_t tokens;  // of the whole reply
};

struct Live {
  Request request;
  WaitingRoom* room = nullptr;
  FairQueue::Place place;  // in the room's queue
  absl::Duration submitted;
  absl::Duration started;  // the first attempt
  absl::Duration first_token_at;
  std::uint32_t attempt = 0;
  std::vector<WorkerId> avoid;
  OpenLeg first;   // the prefill leg, or the whole
  OpenLeg decode;  // only when the plan is split
  bool split = false;
  bool decode_has_spoken = false;    // so it has verified the KV
  std::uint32_t cached_charged = 0;  // prompt tokens that were charged as cached
  // The transfer failed at the decode rank; the prefill rank has not ended its leg.
  std::optional<absl::Status> decode_failure;
  ReplyOrder order;
  std::size_t prompt_logprobs_delivered = 0;  // prompt tokens, over all attempts
  std::optional<Finish> finish;               // known, but tokens before it are still to come
  Ending ending;                              // filled while the request runs

  bool waiting() const { return place.waiting(); }
  contract::RequestKey key() const { return {request.id, attempt}; }
  // All KV is on the decode rank and the first token is here: the request does not need the
  // prefill rank any more.
  bool prefill_is_done() const { return split && decode_has_spoken && order.next() > 0; }
};

}  // namespace baleen::router
