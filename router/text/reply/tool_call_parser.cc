#include "router/text/reply/tool_call_parser.h"

#include <algorithm>
#include <utility>

#include "proto/contract/limits.h"

namespace baleen::router {
namespace {

constexpr std::string_view kWhiteSpace = " \t\r\n";
constexpr std::string_view kFence = "```";
constexpr std::string_view kFenceLanguage = "json";
constexpr std::string_view kFunction = "function";

// A name, a fence and their margins take far less.
constexpr std::size_t kKeptBytesMax = 1024;

constexpr std::string_view Spelling(ToolCallParser::Tag tag) {
  switch (tag) {
    case ToolCallParser::Tag::kCallsBegin:
      return kToolCallsBeginTag;
    case ToolCallParser::Tag::kCallsEnd:
      return kToolCallsEndTag;
    case ToolCallParser::Tag::kCallBegin:
      return kToolCallBeginTag;
    case ToolCallParser::Tag::kCallEnd:
      return kToolCallEndTag;
    case ToolCallParser::Tag::kSeparator:
      return kToolSeparatorTag;
  }
  return {};
}

bool IsBlank(std::string_view text) {
  return text.find_first_not_of(kWhiteSpace) == std::string_view::npos;
}

std::string_view Trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kWhiteSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kWhiteSpace) + 1 - begin);
}

bool IsName(std::string_view text) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  return !text.empty() && text.size() <= contract::kToolNameBytesMax &&
         std::all_of(text.begin(), text.end(), fits);
}

// ``` or ```json, or nothing; `closed`: and perhaps the end of that fence.
bool IsFence(std::string_view text, bool closed) {
  text = Trim(text);
  if (!text.starts_with(kFence)) return text.empty();
  text.remove_prefix(kFence.size());
  if (text.starts_with(kFenceLanguage)) text.remove_prefix(kFenceLanguage.size());
  text = Trim(text);
  return text.empty() || (closed && text == kFence);
}

}  // namespace

void ToolCallParser::Text(std::string_view text, ReplyDelta* delta) {
  while (!text.empty() && !full()) {
    switch (state_) {
      case State::kContent:
        delta->content.append(text);
        return;
      case State::kBetween:
        Keep(text, delta);
        if (!IsBlank(text)) GiveUp(delta);
        return;
      case State::kHead:
        head_.append(text);
        Keep(text, delta);
        return;
      case State::kOpening: {
        const std::size_t begin = FindArguments(text, delta);
        if (begin == std::string_view::npos) return;
        text.remove_prefix(begin);
        break;
      }
      case State::kArguments: {
        const std::size_t size = ScanArguments(text);
        AppendArguments(text.substr(0, size), delta);
        text.remove_prefix(size);
        break;
      }
      case State::kClosing:
        Keep(text, delta);
        if (state_ == State::kClosing && !kFence.starts_with(Trim(kept_))) GiveUp(delta);
        return;
    }
  }
}

std::size_t ToolCallParser::FindArguments(std::string_view text, ReplyDelta* delta) {
  const std::size_t brace = text.find('{');
  opening_.append(text.substr(0, brace));
  if (brace == std::string_view::npos) {
    Keep(text, delta);
    return brace;
  }
  if (ReadName(/*has_arguments=*/true)) {
    BeginCall(delta);
    state_ = State::kArguments;
    return brace;
  }
  Keep(text, delta);
  if (state_ != State::kContent) GiveUp(delta);
  return std::string_view::npos;
}

bool ToolCallParser::ReadName(bool has_arguments) {
  std::string_view name = Trim(head_);
  std::string_view fence = opening_;
  if (name == kFunction && (!has_arguments || !IsFence(opening_, false))) {
    const std::size_t begin = std::min(fence.find_first_not_of(kWhiteSpace), fence.size());
    const std::size_t end = std::min(fence.find('\n', begin), fence.size());
    name = Trim(fence.substr(begin, end - begin));
    fence.remove_prefix(end);
  }
  if (!IsName(name) || !IsFence(fence, !has_arguments)) return false;
  head_ = std::string(name);
  return true;
}

std::size_t ToolCallParser::ScanArguments(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if ((c == '}' || c == ']') && --depth_ == 0) {
      state_ = State::kClosing;
      return i + 1;
    }
  }
  return text.size();
}

void ToolCallParser::Take(Tag tag, ReplyDelta* delta) {
  if (full()) return;
  if (state_ == State::kArguments && (tag == Tag::kSeparator || tag == Tag::kCallsBegin)) {
    Text(Spelling(tag), delta);  // in the middle of a string, as likely as not
    return;
  }
  switch (tag) {
    case Tag::kSeparator:
      if (state_ != State::kHead) break;
      kept_.append(Spelling(tag));
      state_ = State::kOpening;
      return;
    case Tag::kCallEnd:
    case Tag::kCallsEnd:
      TakeEnd(tag, delta);
      return;
    case Tag::kCallsBegin:
    case Tag::kCallBegin:
      TakeBegin(tag, delta);
      return;
  }
  kept_.append(Spelling(tag));
  GiveUp(delta);
}

// What was begun and not ended ends here.
void ToolCallParser::TakeBegin(Tag tag, ReplyDelta* delta) {
  if (state_ == State::kArguments || state_ == State::kClosing) {
    TakeEnd(Tag::kCallEnd, delta);
    if (full()) return;
  }
  const bool no_call = state_ == State::kHead || state_ == State::kOpening;
  if (no_call || kept_.size() > kKeptBytesMax) GiveUp(delta);
  if (calls_ > 0 && IsBlank(kept_)) kept_.clear();
  kept_.append(Spelling(tag));
  state_ = tag == Tag::kCallBegin ? State::kHead : State::kBetween;
}

void ToolCallParser::TakeEnd(Tag tag, ReplyDelta* delta) {
  const bool bare = tag == Tag::kCallEnd && state_ == State::kOpening;
  if (bare && ReadName(/*has_arguments=*/false)) {
    BeginCall(delta);
    AppendArguments("{}", delta);
  }
  if (state_ == State::kHead || state_ == State::kOpening || calls_ == 0) {
    kept_.append(Spelling(tag));
    GiveUp(delta);
    return;
  }
  // Behind text that should not be there as well.
  if (state_ == State::kBetween && !IsBlank(kept_)) GiveUp(delta);
  kept_.clear();
  state_ = State::kBetween;
}

void ToolCallParser::BeginCall(ReplyDelta* delta) {
  delta->tool_calls.push_back({.index = calls_++, .name = std::move(head_)});
  kept_.clear();
  head_.clear();
  opening_.clear();
  state_ = State::kBetween;
  depth_ = 0;
  in_string_ = escaped_ = false;
}

void ToolCallParser::AppendArguments(std::string_view text, ReplyDelta* delta) const {
  if (delta->tool_calls.empty()) delta->tool_calls.push_back({.index = calls_ - 1});
  delta->tool_calls.back().arguments.append(text);
}

void ToolCallParser::Keep(std::string_view text, ReplyDelta* delta) {
  kept_.append(text);
  if (kept_.size() > kKeptBytesMax) GiveUp(delta);
}

void ToolCallParser::GiveUp(ReplyDelta* delta) {
  delta->content.append(kept_);
  kept_.clear();
  head_.clear();
  opening_.clear();
  state_ = State::kContent;
}

void ToolCallParser::Finish(ReplyDelta* delta) {
  const bool is_format = state_ == State::kClosing || (calls_ > 0 && IsBlank(kept_));
  if (!is_format) delta->content.append(kept_);
  kept_.clear();
}

}  // namespace baleen::router
