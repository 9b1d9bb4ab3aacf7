#include "router/text/reply_stream.h"

#include <algorithm>
#include <string>
#include <utility>

namespace baleen::router {
namespace {

using Tag = ToolCallParser::Tag;

// Precondition: tokens.contains(id).
Tag TagOf(const ToolTokens& tokens, std::int32_t id) {
  if (id == tokens.calls_begin) return Tag::kCallsBegin;
  if (id == tokens.calls_end) return Tag::kCallsEnd;
  if (id == tokens.call_begin) return Tag::kCallBegin;
  return id == tokens.call_end ? Tag::kCallEnd : Tag::kSeparator;
}

}  // namespace

ReplyStream::ReplyStream(const TokenTable* table, Options options)
    : options_(std::move(options)),
      tags_are_tokens_(options_.open_id >= 0 && options_.close_id >= 0),
      detokenizer_(table),
      splitter_({.starts_inside = options_.starts_inside, .finds_tags_in_text = !tags_are_tokens_}),
      matcher_(options_.stop_texts) {
  if (options_.tool_tokens.complete()) parser_.emplace(options_.tool_calls_max);
}

std::size_t ReplyStream::Push(std::span<const std::int32_t> ids, ReplyDelta* delta) {
  std::size_t taken = 0;
  while (taken < ids.size() && !stopped()) PushOne(ids[taken++], delta);
  return taken;
}

void ReplyStream::PushOne(std::int32_t id, ReplyDelta* delta) {
  ++tokens_;
  const bool was_reasoning = options_.splits_reasoning && splitter_.in_reasoning();
  if (!TakeReasoningTag(id, delta) && !TakeToolTag(id, delta)) {
    std::string text;
    detokenizer_.Push(id, &text);
    Text(text, delta);
  }
  const bool is_reasoning = options_.splits_reasoning && splitter_.in_reasoning();
  if (was_reasoning || is_reasoning) reasoning_tokens_ = tokens_;
}

bool ReplyStream::TakeReasoningTag(std::int32_t id, ReplyDelta* delta) {
  const bool is_tag = id == options_.open_id || id == options_.close_id;
  if (!options_.splits_reasoning || !tags_are_tokens_ || !is_tag) return false;
  // An unfinished character ends here, as text of the part that it belongs to.
  std::string text;
  detokenizer_.Finish(&text);
  Text(text, delta);
  return id == options_.open_id ? splitter_.Open() : splitter_.Close();
}

bool ReplyStream::TakeToolTag(std::int32_t id, ReplyDelta* delta) {
  if (!parser_ || !options_.tool_tokens.contains(id)) return false;
  std::string text;
  detokenizer_.Finish(&text);
  Text(text, delta);
  if (options_.splits_reasoning) {
    if (splitter_.in_reasoning()) return false;
    ReplyDelta stage;
    splitter_.BeginContent(&stage);
    FromSplitter(stage, delta);
  }
  ReplyDelta stage;
  stage.tool_calls = std::move(delta->tool_calls);
  parser_->Take(TagOf(options_.tool_tokens, id), &stage);
  FromParser(stage, delta);
  return true;
}

void ReplyStream::Text(std::string_view text, ReplyDelta* delta) {
  if (text.empty()) return;
  if (!options_.splits_reasoning) {
    Content(text, delta);
    return;
  }
  ReplyDelta stage;
  splitter_.Text(text, &stage);
  FromSplitter(stage, delta);
}

void ReplyStream::Content(std::string_view text, ReplyDelta* delta) {
  if (!parser_) {
    Plain(text, delta);
    return;
  }
  ReplyDelta stage;
  stage.tool_calls = std::move(delta->tool_calls);
  parser_->Text(text, &stage);
  FromParser(stage, delta);
}

void ReplyStream::Plain(std::string_view text, ReplyDelta* delta) {
  matcher_.Push(text, tokens_ >= options_.min_tokens, &delta->content);
}

void ReplyStream::FromSplitter(ReplyDelta& stage, ReplyDelta* delta) {
  delta->reasoning.append(stage.reasoning);
  if (!stage.content.empty()) Content(stage.content, delta);
}

void ReplyStream::FromParser(ReplyDelta& stage, ReplyDelta* delta) {
  delta->tool_calls = std::move(stage.tool_calls);
  if (!stage.content.empty()) Plain(stage.content, delta);
}

void ReplyStream::Finish(ReplyDelta* delta) {
  std::string text;
  detokenizer_.Finish(&text);
  Text(text, delta);
  if (options_.splits_reasoning) {
    ReplyDelta stage;
    splitter_.Finish(&stage);
    FromSplitter(stage, delta);
  }
  if (parser_) {
    ReplyDelta stage;
    stage.tool_calls = std::move(delta->tool_calls);
    parser_->Finish(&stage);
    FromParser(stage, delta);
  }
  matcher_.Finish(&delta->content);
}

}  // namespace baleen::router
