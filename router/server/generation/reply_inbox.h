// Replies on their way from the dispatch thread to a client thread: one wake-up for whatever has
// come together meanwhile.
#pragma once

#include <cstddef>
#include <mutex>
#include <variant>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "router/dispatch/links.h"

namespace baleen::router {

struct Reply {
  contract::RequestId id;
  std::variant<ReplyToken, Ending> body;
};

class ReplyInbox final : public ReplySink {
 public:
  // `wake` is called on the dispatch thread when the inbox is no longer empty; it leads to a Take
  // soon. No token is taken while `tokens_max` wait, which means that the client thread is stuck;
  // endings always are, one for each request.
  ReplyInbox(std::size_t tokens_max, absl::AnyInvocable<void()> wake);

  // ReplySink, on the dispatch thread.
  bool Token(contract::RequestId id, ReplyToken token) override;
  void End(contract::RequestId id, Ending ending) override;

  // On the client thread: everything, in order.
  std::vector<Reply> Take();

 private:
  void Push(Reply reply);

  const std::size_t tokens_max_;
  absl::AnyInvocable<void()> wake_;
  std::mutex mutex_;
  std::vector<Reply> waiting_;  // guarded by mutex_
};

}  // namespace baleen::router
