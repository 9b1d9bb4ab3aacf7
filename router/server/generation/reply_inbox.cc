#include "router/server/generation/reply_inbox.h"

#include <iterator>
#include <utility>

namespace baleen::router {

ReplyInbox::ReplyInbox(std::size_t tokens_max, absl::AnyInvocable<void()> wake)
    : tokens_max_(tokens_max), wake_(std::move(wake)) {}

bool ReplyInbox::IsFull() {
  if (filling_.empty()) {
    const std::lock_guard lock(mutex_);
    waiting_before_ = waiting_.size();
  }
  return waiting_before_ + filling_.size() >= tokens_max_;
}

bool ReplyInbox::Token(contract::RequestId id, ReplyToken token) {
  if (IsFull()) return false;
  filling_.push_back({id, std::move(token)});
  return true;
}

bool ReplyInbox::PromptLogprobs(contract::RequestId id, router::PromptLogprobs logprobs) {
  if (IsFull()) return false;
  filling_.push_back({id, std::move(logprobs)});
  return true;
}

void ReplyInbox::End(contract::RequestId id, Ending ending) {
  filling_.push_back({id, std::move(ending)});
}

void ReplyInbox::Routed(contract::RequestId id, std::string explanation) {
  filling_.push_back({id, RouteText{std::move(explanation)}});
}

void ReplyInbox::Flush() {
  if (filling_.empty()) return;
  bool was_empty = false;
  {
    const std::lock_guard lock(mutex_);
    was_empty = waiting_.empty();
    if (was_empty) {
      waiting_.swap(filling_);
    } else {
      waiting_.insert(waiting_.end(), std::make_move_iterator(filling_.begin()),
                      std::make_move_iterator(filling_.end()));
    }
  }
  filling_.clear();
  if (was_empty) wake_();
}

std::vector<Reply> ReplyInbox::Take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(waiting_, {});
}

}  // namespace baleen::router
