#include "router/text/reply_stream.h"

#include <string>

namespace baleen::router {

ReplyStream::ReplyStream(const TokenTable* table, const Options& options)
    : splits_reasoning_(options.splits_reasoning),
      tags_are_tokens_(options.open_id >= 0 && options.close_id >= 0),
      open_id_(options.open_id),
      close_id_(options.close_id),
      detokenizer_(table),
      splitter_({.starts_inside = options.starts_inside, .finds_tags_in_text = !tags_are_tokens_}) {
}

void ReplyStream::Push(std::span<const std::int32_t> ids, ReplyDelta* delta) {
  for (const std::int32_t id : ids) PushOne(id, delta);
}

void ReplyStream::PushOne(std::int32_t id, ReplyDelta* delta) {
  ++tokens_;
  if (!splits_reasoning_) {
    detokenizer_.Push(id, &delta->content);
    return;
  }
  const bool was_reasoning = splitter_.in_reasoning();
  if (!TakeTag(id, delta)) {
    std::string text;
    detokenizer_.Push(id, &text);
    splitter_.Text(text, delta);
  }
  if (was_reasoning || splitter_.in_reasoning()) reasoning_tokens_ = tokens_;
}

bool ReplyStream::TakeTag(std::int32_t id, ReplyDelta* delta) {
  if (!tags_are_tokens_ || (id != open_id_ && id != close_id_)) return false;
  // An unfinished character ends here, as text of the part that it belongs to.
  std::string text;
  detokenizer_.Finish(&text);
  splitter_.Text(text, delta);
  return id == open_id_ ? splitter_.Open() : splitter_.Close();
}

void ReplyStream::Finish(ReplyDelta* delta) {
  std::string text;
  detokenizer_.Finish(&text);
  if (!splits_reasoning_) {
    delta->content.append(text);
    return;
  }
  splitter_.Text(text, delta);
  splitter_.Finish(delta);
}

}  // namespace baleen::router
