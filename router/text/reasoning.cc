#include "router/text/reasoning.h"

#include <algorithm>

namespace baleen::router {
namespace {

constexpr std::string_view kWhiteSpace = " \t\r\n";

// Size of the longest end of `text` that begins `tag` without being all of it.
std::size_t PartialTagSize(std::string_view text, std::string_view tag) {
  for (std::size_t size = std::min(text.size(), tag.size() - 1); size > 0; --size) {
    if (text.ends_with(tag.substr(0, size))) return size;
  }
  return 0;
}

}  // namespace

void ReasoningSplitter::Text(std::string_view text, ReplyDelta* delta) {
  pending_.append(text);
  bool more = true;
  while (more && !pending_.empty()) {
    switch (state_) {
      case State::kStart:
        more = StepStart(delta);
        break;
      case State::kReasoning:
        more = StepReasoning(delta);
        break;
      case State::kContent:
        AppendContent(pending_, delta);
        pending_.clear();
        break;
    }
  }
}

bool ReasoningSplitter::StepStart(ReplyDelta* delta) {
  const std::size_t white = std::min(pending_.find_first_not_of(kWhiteSpace), pending_.size());
  white_space_.append(pending_, 0, white);
  pending_.erase(0, white);
  if (pending_.empty()) return false;
  if (finds_tags_in_text_) {
    if (pending_.starts_with(kReasoningOpenTag)) {
      pending_.erase(0, kReasoningOpenTag.size());
      return Open();
    }
    if (kReasoningOpenTag.starts_with(pending_)) return false;
  }
  state_ = State::kContent;
  in_margin_ = false;
  AppendContent(white_space_, delta);
  return true;
}

bool ReasoningSplitter::StepReasoning(ReplyDelta* delta) {
  const std::size_t close =
      finds_tags_in_text_ ? pending_.find(kReasoningCloseTag) : std::string::npos;
  if (close != std::string::npos) {
    AppendReasoning(std::string_view(pending_).substr(0, close), delta);
    pending_.erase(0, close + kReasoningCloseTag.size());
    return Close();
  }
  const std::size_t kept = finds_tags_in_text_ ? PartialTagSize(pending_, kReasoningCloseTag) : 0;
  AppendReasoning(std::string_view(pending_).substr(0, pending_.size() - kept), delta);
  pending_.erase(0, pending_.size() - kept);
  return false;
}

bool ReasoningSplitter::Open() {
  // A model may repeat the tag that ends its prompt.
  const bool opens = state_ == State::kStart || (state_ == State::kReasoning && in_margin_);
  if (opens) state_ = State::kReasoning;
  return opens;
}

bool ReasoningSplitter::Close() {
  if (state_ != State::kReasoning) return false;
  state_ = State::kContent;
  in_margin_ = true;
  line_feeds_ = 0;
  return true;
}

void ReasoningSplitter::BeginContent(ReplyDelta* delta) {
  if (state_ != State::kStart) return;
  Finish(delta);
  state_ = State::kContent;
}

void ReasoningSplitter::Finish(ReplyDelta* delta) {
  if (state_ == State::kReasoning) {
    AppendReasoning(pending_, delta);
  } else {
    in_margin_ = in_margin_ && state_ == State::kContent;
    if (state_ == State::kStart) AppendContent(white_space_, delta);
    AppendContent(pending_, delta);
  }
  pending_.clear();
  white_space_.clear();
}

void ReasoningSplitter::AppendReasoning(std::string_view text, ReplyDelta* delta) {
  if (in_margin_) text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
  if (text.empty()) return;
  in_margin_ = false;
  const std::size_t last = text.find_last_not_of('\n');
  if (last == std::string_view::npos) {
    line_feeds_ += text.size();
    return;
  }
  delta->reasoning.append(line_feeds_, '\n');
  delta->reasoning.append(text.substr(0, last + 1));
  line_feeds_ = text.size() - last - 1;
}

void ReasoningSplitter::AppendContent(std::string_view text, ReplyDelta* delta) {
  if (in_margin_) text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
  if (text.empty()) return;
  in_margin_ = false;
  delta->content.append(text);
}

}  // namespace baleen::router
