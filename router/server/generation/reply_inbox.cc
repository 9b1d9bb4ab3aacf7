#include "router/server/generation/reply_inbox.h"

#include <utility>

namespace baleen::router {

ReplyInbox::ReplyInbox(std::size_t tokens_max, absl::AnyInvocable<void()> wake)
    : tokens_max_(tokens_max), wake_(std::move(wake)) {}

bool ReplyInbox::Token(contract::RequestId id, ReplyToken token) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() >= tokens_max_) return false;
  }
  // Only the dispatch thread adds: the inbox has not grown meanwhile.
  Push({id, std::move(token)});
  return true;
}

void ReplyInbox::End(contract::RequestId id, Ending ending) { Push({id, std::move(ending)}); }

void ReplyInbox::Push(Reply reply) {
  bool was_empty = false;
  {
    const std::lock_guard lock(mutex_);
    was_empty = waiting_.empty();
    waiting_.push_back(std::move(reply));
  }
  if (was_empty) wake_();
}

std::vector<Reply> ReplyInbox::Take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(waiting_, {});
}

}  // namespace baleen::router
