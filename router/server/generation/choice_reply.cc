#include "router/server/generation/choice_reply.h"

#include <algorithm>
#include <utility>

#include "observability/base/check.h"

namespace baleen::router {
namespace {

// Without a tokenizer no token has a text.
const TokenTable& TableOf(const ModelText& model) {
  static const TokenTable kNoTokens;
  return model.tokenizer == nullptr ? kNoTokens : model.tokenizer->table();
}

ReplyStream StreamOf(const ChoiceOptions& options) {
  const Tokenizer* tokenizer = options.model->tokenizer.get();
  if (tokenizer == nullptr) {
    return ReplyStream(&TableOf(*options.model), {.splits_reasoning = false});
  }
  ReplyStream::Options stream{.splits_reasoning = options.splits_reasoning,
                              .starts_inside = options.opens_reasoning,
                              .open_id = tokenizer->reasoning_open_id(),
                              .close_id = tokenizer->reasoning_close_id(),
                              .stop_texts = options.stop_texts,
                              .min_tokens = options.tokens_min};
  if (options.finds_tool_calls) stream.tool_tokens = tokenizer->tool_tokens();
  if (options.single_tool_call) stream.tool_calls_max = 1;
  return ReplyStream(&tokenizer->table(), std::move(stream));
}

}  // namespace

ChoiceReply::ChoiceReply(const ChoiceOptions& options)
    : end_token_ids_(options.end_token_ids),
      with_logprobs_(options.with_logprobs),
      table_(TableOf(*options.model)),
      stream_(StreamOf(options)) {}

bool ChoiceReply::Add(ReplyToken token) {
  BALEEN_CHECK(!finish_, "a finished choice gets no tokens");
  ++tokens_;
  token_ids_.push_back(token.id);
  if (with_logprobs_) {
    logprobs_.push_back(std::move(token.logprobs).value_or(TokenLogprobs{}));
    logprob_text_bytes_ += table_.At(token.id).bytes.size();
    for (const auto& [id, value] : logprobs_.back().top) {
      logprob_text_bytes_ += table_.At(id).bytes.size();
    }
  }
  const bool ends = std::ranges::find(end_token_ids_, token.id) != end_token_ids_.end();
  if (!ends) stream_.Push({&token.id, 1}, &delta_);
  return stream_.stopped();
}

void ChoiceReply::Finish(FinishReason reason) {
  stream_.Finish(&delta_);
  if (reason == FinishReason::kLength) {
    finish_ = ChoiceFinish::kLength;
  } else {
    finish_ = stream_.tool_calls() > 0 ? ChoiceFinish::kToolCalls : ChoiceFinish::kStop;
  }
}

bool ChoiceReply::full() const {
  return token_ids_.size() >= kPendingTokensMax ||
         TextBytes() + logprob_text_bytes_ >= kPendingTextBytesMax;
}

std::size_t ChoiceReply::TextBytes() const {
  std::size_t bytes = delta_.reasoning.size() + delta_.content.size();
  for (const ToolCallDelta& call : delta_.tool_calls) {
    bytes += sizeof(call) + call.name.size() + call.arguments.size();
  }
  return bytes;
}

void ChoiceReply::Take(ReplyPart& part) {
  part.delta = std::exchange(delta_, {});
  part.token_ids = std::exchange(token_ids_, {});
  part.first_token_index = tokens_ - static_cast<std::uint32_t>(part.token_ids.size());
  part.logprobs = std::exchange(logprobs_, {});
  logprob_text_bytes_ = 0;
  if (!finish_) return;
  part.finish = finish_;
  finish_taken_ = true;
}

}  // namespace baleen::router
