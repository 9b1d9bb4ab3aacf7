#include "worker/engine/rules/reply_rules.h"

#include <algorithm>
#include <cstddef>

namespace baleen::worker {
namespace {

bool CountsPrompt(const SampleSpec& sampling) { return sampling.repetition_penalty != 1.0f; }

bool CountsReply(const SampleSpec& sampling) {
  return CountsPrompt(sampling) || sampling.frequency_penalty != 0.0f ||
         sampling.presence_penalty != 0.0f;
}

}  // namespace

ReplyRules::ReplyRules(const StartCommand& start, const ModelInfo& model)
    : tokens_min_(start.tokens_min),
      tokens_max_(start.tokens_max),
      counts_reply_(CountsReply(start.sampling)),
      ends_(start.stop_token_ids) {
  const auto& eos = model.eos_token_ids;
  if (tokens_min_ > 0) {
    banned_ = ends_;
    // A model may name an end that its vocabulary does not have.
    std::copy_if(eos.begin(), eos.end(), std::back_inserter(banned_), [&](std::int32_t id) {
      return id >= 0 && static_cast<std::uint32_t>(id) < model.vocabulary_size;
    });
  }
  if (!start.ignore_eos) ends_.insert(ends_.end(), eos.begin(), eos.end());
  std::sort(ends_.begin(), ends_.end());
  if (CountsPrompt(start.sampling)) CountPrompt(start.prompt, model.vocabulary_size);
}

void ReplyRules::CountPrompt(std::span<const std::int32_t> prompt, std::uint32_t vocabulary_size) {
  std::vector<bool> has(vocabulary_size);
  for (const std::int32_t token : prompt) has[static_cast<std::size_t>(token)] = true;
  uses_.reserve(static_cast<std::size_t>(std::count(has.begin(), has.end(), true)));
  for (std::uint32_t id = 0; id < vocabulary_size; ++id) {
    if (has[id]) uses_.push_back({.token = static_cast<std::int32_t>(id), .in_prompt = true});
  }
}

void ReplyRules::Add(std::int32_t token) {
  ++tokens_;
  if (std::binary_search(ends_.begin(), ends_.end(), token)) {
    ended_ = EndReason::kStop;
  } else if (tokens_ >= tokens_max_) {
    ended_ = EndReason::kLength;
  }
  if (!counts_reply_) return;
  auto use = std::ranges::lower_bound(uses_, token, {}, &TokenUse::token);
  if (use == uses_.end() || use->token != token) use = uses_.insert(use, {.token = token});
  ++use->in_reply;
}

std::span<const std::int32_t> ReplyRules::banned() const {
  if (tokens_ >= tokens_min_) return {};
  return banned_;
}

}  // namespace baleen::worker
