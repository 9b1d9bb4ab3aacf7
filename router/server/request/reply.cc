#include "router/server/request/reply.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "observability/base/check.h"
#include "proto/baleen/v1/inference.pb.h"

namespace baleen::router {
namespace {

void FillText(ReplyDelta& delta, v1::ChatChunk& chunk) {
  chunk.set_reasoning_delta(std::move(delta.reasoning));
  chunk.set_delta(std::move(delta.content));
}

void FillText(ReplyDelta& delta, v1::GenerateChunk& chunk) {
  chunk.set_delta(std::move(delta.content));
}

void FillPromptIds(const TokenIds& ids, v1::ChatChunk& chunk) {
  chunk.mutable_prompt_token_ids()->Add(ids.begin(), ids.end());
}

void FillPromptIds(const TokenIds&, v1::GenerateChunk&) {}

void FillLogprobs(const TokenIds&, const std::vector<TokenLogprobs>&, v1::ChatChunk&) {}

void FillLogprobs(const TokenIds& ids, const std::vector<TokenLogprobs>& logprobs,
                  v1::GenerateChunk& chunk) {
  for (std::size_t i = 0; i < logprobs.size(); ++i) {
    v1::TokenLogprob& out = *chunk.add_logprobs();
    out.set_token_id(ids[i]);
    out.set_logprob(logprobs[i].sampled);
    for (const auto& [id, value] : logprobs[i].top) {
      v1::TopLogprob& top = *out.add_top();
      top.set_token_id(id);
      top.set_logprob(value);
    }
  }
}

std::uint64_t Microseconds(absl::Duration duration) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, absl::ToInt64Microseconds(duration)));
}

// Without a tokenizer no token has a text.
ReplyStream StreamOf(const ReplyOptions& options) {
  static const TokenTable kNoTokens;
  const Tokenizer* tokenizer = options.model->tokenizer.get();
  if (tokenizer == nullptr) return ReplyStream(&kNoTokens, {.splits_reasoning = false});
  return ReplyStream(&tokenizer->table(), {.splits_reasoning = options.chat,
                                           .starts_inside = options.opens_reasoning,
                                           .open_id = tokenizer->reasoning_open_id(),
                                           .close_id = tokenizer->reasoning_close_id()});
}

}  // namespace

ReplyBuilder::ReplyBuilder(ReplyOptions options)
    : options_(std::move(options)), stream_(StreamOf(options_)) {}

void ReplyBuilder::Add(ReplyToken token) {
  ++tokens_;
  token_ids_.push_back(token.id);
  if (options_.sampling.logprobs >= 0) {
    logprobs_.push_back(std::move(token.logprobs).value_or(TokenLogprobs{}));
  }
  // An end-of-sequence token says that the reply ends; it has no text, whatever the tokenizer calls
  // it.
  const bool ends =
      !options_.ignore_eos && std::ranges::find(options_.identity.eos_token_ids, token.id) !=
                                  options_.identity.eos_token_ids.end();
  if (!ends) stream_.Push({&token.id, 1}, &delta_);
}

void ReplyBuilder::Finish(const Ending& ending, const ReplyTimes& times) {
  BALEEN_CHECK(ending.status.ok() && ending.tokens == tokens_,
               "a finished reply has had all its tokens");
  stream_.Finish(&delta_);
  last_ = std::make_unique<Last>(Last{ending, times});
}

template <typename Chunk>
void ReplyBuilder::Fill(Chunk& chunk) {
  chunk.set_request_id(options_.request_id);
  FillText(delta_, chunk);
  chunk.mutable_token_ids()->Add(token_ids_.begin(), token_ids_.end());
  chunk.set_first_token_index(tokens_ - static_cast<std::uint32_t>(token_ids_.size()));
  FillLogprobs(token_ids_, logprobs_, chunk);
  if (first_chunk_) FillPromptIds(options_.prompt_token_ids, chunk);
  if (last_ == nullptr) return;
  chunk.set_finish_reason(last_->ending.finish == FinishReason::kStop ? v1::FINISH_REASON_STOP
                                                                      : v1::FINISH_REASON_LENGTH);
  v1::Usage& usage = *chunk.mutable_usage();
  usage.set_prompt_tokens(options_.prompt_tokens);
  usage.set_completion_tokens(tokens_);
  usage.set_reasoning_tokens(stream_.reasoning_tokens());
  usage.set_seed(options_.sampling.seed);
  v1::Timing& timing = *chunk.mutable_timing();
  timing.set_prefill_worker(last_->ending.prefill_worker);
  timing.set_decode_worker(last_->ending.decode_worker);
  timing.set_time_to_first_token_us(Microseconds(last_->times.to_first_token));
  timing.set_total_us(Microseconds(last_->times.total));
  timing.set_kv_transfer_bytes(last_->ending.kv_transfer_bytes);
}

std::string ReplyBuilder::Take() {
  std::string bytes;
  if (options_.chat) {
    v1::ChatChunk chunk;
    Fill(chunk);
    bytes = chunk.SerializeAsString();
  } else {
    v1::GenerateChunk chunk;
    Fill(chunk);
    bytes = chunk.SerializeAsString();
  }
  delta_ = {};
  token_ids_.clear();
  logprobs_.clear();
  last_ = nullptr;
  first_chunk_ = false;
  return bytes;
}

}  // namespace baleen::router
