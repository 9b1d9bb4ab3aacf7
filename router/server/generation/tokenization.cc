#include "router/server/generation/tokenization.h"

#include <utility>

#include "observability/base/status_macros.h"
#include "proto/contract/status.h"
#include "router/server/generation/reason.h"

namespace baleen::router {

using contract::MakeStatus;
using contract::Reason;

Tokenization::Tokenization(GenerationShard& shard, absl::StatusOr<TokenizationRequest> request,
                           std::size_t bytes, Done done)
    : shard_(shard),
      done_(std::move(done)),
      number_(shard.NextNumbers(1)),
      gone_(std::make_shared<std::atomic<bool>>(false)) {
  shard_.Enter(number_, *this);
  const absl::Status status =
      request.ok() ? Start(*std::move(request), bytes) : std::move(request).status();
  if (!status.ok()) End(status);
}

Tokenization::~Tokenization() {
  gone_->store(true);
  shard_.Leave(number_);
}

absl::Status Tokenization::Start(TokenizationRequest request, std::size_t bytes) {
  const ServerParts& parts = shard_.parts();
  BALEEN_ASSIGN_OR_RETURN(const ModelText* model, parts.models.Find(request.model));
  BALEEN_ASSIGN_OR_RETURN(ticket_, parts.admission.Admit(bytes));
  const bool taken = shard_.SubmitText(
      number_, gone_,
      [model, source = std::move(request.prompt), now = parts.clock.Wall()]() mutable {
        return MakePrompt(*model, {.source = std::move(source)}, now);
      });
  if (taken) return absl::OkStatus();
  return MakeStatus(Reason::kQueueFull, "too many texts wait to be tokenized");
}

void Tokenization::OnPrompt(absl::StatusOr<Prompt> prompt) {
  if (prompt.ok()) {
    End(std::move(prompt->ids));
  } else {
    End(prompt.status());
  }
}

void Tokenization::End(const absl::StatusOr<TokenIds>& ids) {
  if (ids.ok()) {
    done_(ids, absl::ZeroDuration());
    return;
  }
  const absl::Status status = WithReason(ids.status());
  const bool busy = contract::ReasonOf(status) == Reason::kQueueFull;
  done_(status, busy ? shard_.parts().admission.RetryAfter() : absl::ZeroDuration());
}

}  // namespace baleen::router
