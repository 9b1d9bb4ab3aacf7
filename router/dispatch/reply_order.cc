#include "router/dispatch/reply_order.h"

#include <utility>

#include "observability/base/check.h"

namespace baleen::router {

ReplyOrder::Verdict ReplyOrder::Accept(std::uint32_t sequence, ReplyToken token,
                                       std::vector<ReplyToken>& ready) {
  if (sequence < next_ || early_.contains(sequence)) return Verdict::kDuplicate;
  if (sequence > next_) {
    if (early_.size() >= kEarlyTokensMax) return Verdict::kTooEarly;
    early_.emplace(sequence, std::move(token));
    return Verdict::kAccepted;
  }
  ready.push_back(std::move(token));
  ++next_;
  for (auto it = early_.begin(); it != early_.end() && it->first == next_; it = early_.erase(it)) {
    ready.push_back(std::move(it->second));
    ++next_;
  }
  return Verdict::kAccepted;
}

void ReplyOrder::Restart() {
  BALEEN_CHECK(next_ == 0, "a reply is started over only before its first token");
  early_.clear();
}

}  // namespace baleen::router
