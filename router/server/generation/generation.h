// One request of a client, whatever API it came by: admitted, its prompt made, its choices
// dispatched, their tokens turned into parts, and ended exactly once.
//
// A generation belongs to the thread of its shard.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "router/admission/admission.h"
#include "router/server/generation/choice_reply.h"
#include "router/server/generation/generation_shard.h"
#include "router/server/generation/reply_part.h"
#include "router/server/request/prompt.h"
#include "router/server/request/request.h"

namespace baleen::router {

// What an edge knows of a request besides the request.
struct RequestOrigin {
  std::size_t bytes = 0;  // of the message, as received
  // Monotonic; infinite: none but the server's own.
  absl::Duration deadline = absl::InfiniteDuration();
  // Who calls; an error ends the request with it.
  absl::StatusOr<CallerPointer> caller = CallerPointer();
  bool explain = false;  // route_text() is wanted
};

// The edge's side of a generation. On the shard's thread.
class GenerationEdge {
 public:
  virtual ~GenerationEdge() = default;
  // Take has something, or the status is known. Called again when there is more; an edge that is
  // busy writing does nothing then, and calls Flush when it is done. The generation must outlive
  // the call.
  virtual void OnReady() = 0;
};

class Generation final : public PromptTaker {
 public:
  // All borrowed.
  Generation(GenerationShard& shard, GenerationEdge& edge);
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;
  // Abandons what has not ended.
  ~Generation() override;

  // Once. OnReady follows, from within at the earliest. A request that is an error ends with it.
  void Begin(absl::StatusOr<GenerationRequest> request, const RequestOrigin& origin);

  // The client has gone, or does not read: `why` is kCancelled or kDeadlineExceeded. OnReady does
  // not follow.
  void Abandon(absl::Status why);

  // Opaque, for the client and the logs. After Begin.
  const std::string& request_id() const { return request_id_; }
  const ModelText* model() const { return model_; }  // null: the request was refused before
  std::string_view model_digest() const { return identity_.digest; }

  // Calls OnReady if it is time to, now or later.
  void Flush();
  // Something is pending and it is time for it. Parts come before the end.
  bool ready() const;
  // The next part. Precondition: ready().
  ReplyPart Take();
  // Set when no part comes any more but those that are pending: OK, or why the request failed. The
  // pending parts of a failed request need not be taken.
  const std::optional<absl::Status>& status() const { return status_; }
  // Why the first choice went where it went, when that was asked for; known before its first token.
  const std::string& route_text() const { return route_text_; }
  // When a refused client should try again; zero: no hint.
  absl::Duration retry_after() const { return retry_after_; }

  // From the shard.
  void OnPrompt(absl::StatusOr<Prompt> prompt) override;
  void OnReply(Reply reply);
  void FlushWaited();

 private:
  enum class Phase : std::uint8_t {
    kNew,
    kText,        // its prompt is being made
    kDispatched,  // replies come
    kEnded,
  };
  struct Choice {
    explicit Choice(const ChoiceOptions& options) : reply(options) {}
    ChoiceReply reply;
    bool running = true;      // dispatch will still say how it ended
    bool text_ended = false;  // by its text, so dispatch was told to end it
  };

  absl::Status Accept(GenerationRequest request, const RequestOrigin& origin);
  absl::Status AskForPrompt();
  absl::Status Submit(Prompt prompt);
  absl::Status Charge(std::uint32_t prompt_tokens, std::uint32_t tokens_max);
  absl::Status MakeChoices(const Prompt& prompt);
  Request RequestFor(Prompt prompt) const;
  void TakePromptLogprobs(router::PromptLogprobs logprobs);
  void TakePendingPrompt(ReplyPart& part);
  void TakeToken(std::uint32_t choice, ReplyToken token);
  void TakeEnding(std::uint32_t choice, const Ending& ending);
  void ObserveToken();
  void Finish();
  void Fail(const absl::Status& status);
  void CancelRunning();
  void SetPhase(Phase phase);
  void Count(const absl::Status& status);
  bool has_pending() const;
  contract::RequestId IdOf(std::uint32_t choice) const;
  std::uint32_t CompletionTokens() const;
  absl::Duration Now() const;

  GenerationShard& shard_;
  const ServerParts& parts_;
  GenerationEdge& edge_;

  Phase phase_ = Phase::kNew;
  std::uint64_t number_ = 0;   // of choice 0; the others follow
  std::uint32_t numbers_ = 0;  // that are the generation's
  std::string request_id_;
  absl::Duration accepted_;
  absl::Duration deadline_ = absl::InfiniteDuration();
  absl::Duration latest_token_;
  std::optional<absl::Duration> to_first_token_;
  Admission::Ticket ticket_;  // kept until the edge is done: what the client has not taken counts
  const ModelText* model_ = nullptr;
  ModelIdentity identity_;
  GenerationRequest request_;
  CallerPointer caller_;
  bool explain_ = false;
  std::uint64_t charged_ = 0;                         // tokens of the caller's budget
  std::shared_ptr<const TokenIds> prompt_;            // once dispatched
  std::string prompt_text_;                           // to be returned
  std::vector<PromptTokenLogprobs> prompt_logprobs_;  // pending
  std::string route_text_;
  std::vector<Choice> choices_;
  std::size_t running_ = 0;        // choices
  std::uint32_t next_choice_ = 0;  // to look at for something to take
  bool first_part_ = true;
  ReplyTotals totals_;
  bool totals_taken_ = false;
  absl::Duration flush_at_ = absl::ZeroDuration();
  bool flush_waits_ = false;  // in the shard's list
  std::optional<absl::Status> status_;
  absl::Duration retry_after_;
  std::shared_ptr<std::atomic<bool>> gone_;  // nobody wants the prompt any more
};

}  // namespace baleen::router
