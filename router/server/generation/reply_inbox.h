// Replies on their way from the dispatch thread to a client thread: one wake-up for whatever has
// come together meanwhile.
#pragma once

#include <cstddef>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "router/dispatch/links.h"

namespace baleen::router {

struct RouteText {
  std::string text;
};

struct Reply {
  contract::RequestId id;
  // Of a request: where it went, log-probabilities of its prompt, its tokens, its end.
  std::variant<RouteText, router::PromptLogprobs, ReplyToken, Ending> body;
};

class ReplyInbox final : public ReplySink {
 public:
  // `wake` is called on the dispatch thread, by Flush, when the inbox is no longer empty; it leads
  // to a Take soon. No token is taken while `tokens_max` wait, which means that the client thread
  // is stuck; endings always are, one for each request.
  ReplyInbox(std::size_t tokens_max, absl::AnyInvocable<void()> wake);

  // ReplySink, on the dispatch thread.
  bool Token(contract::RequestId id, ReplyToken token) override;
  bool PromptLogprobs(contract::RequestId id, router::PromptLogprobs logprobs) override;
  void End(contract::RequestId id, Ending ending) override;
  void Routed(contract::RequestId id, std::string explanation) override;
  void Flush() override;

  // On the client thread: everything, in order.
  std::vector<Reply> Take();

 private:
  bool IsFull();

  const std::size_t tokens_max_;
  absl::AnyInvocable<void()> wake_;

  // On the dispatch thread only:
  std::vector<Reply> filling_;      // since the last Flush
  std::size_t waiting_before_ = 0;  // in waiting_ when it began to fill

  std::mutex mutex_;
  std::vector<Reply> waiting_;  // guarded by mutex_
};

}  // namespace baleen::router
