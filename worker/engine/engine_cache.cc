// The engine's dealings with the prefix cache: what a prompt finds there, and what it leaves.
#include <algorithm>

#include "proto/contract/limits.h"
#include "worker/engine/engine.h"

namespace baleen::worker {

// The names of the blocks that the sequence may take from the cache: never all of a prompt, whose
// last token is computed for its logits.
BlockChain Engine::ReusableChain(const Sequence& sequence) const {
  const StartCommand& start = sequence.start;
  const bool looks_up = options_.prefix_cache && start.leg != Leg::kDecode &&
                        !start.prompt_logprobs.has_value() && !start.block_hashes.empty();
  if (!looks_up) return {};
  const std::size_t reusable = (start.prompt.size() - 1) / contract::kBlockTokens;
  return BlockChain(start.block_hashes).first(std::min(reusable, start.block_hashes.size()));
}

// What others have computed since: of prompts that begin alike and came together, one is computed.
void Engine::TakeFromCache() {
  for (const auto& sequence : running_) {
    if (sequence->phase != Phase::kPrefilling) continue;
    pool_.Extend(sequence->blocks, ReusableChain(*sequence));
    SkipCached(*sequence);
  }
}

// Goes on after the leading blocks that are cached. The data plane gets them now.
void Engine::SkipCached(Sequence& sequence) {
  const std::uint32_t cached = sequence.blocks.cached() * contract::kBlockTokens;
  if (cached <= sequence.computed) return;
  const std::uint32_t found = cached - sequence.computed;
  sequence.computed = cached;
  sequence.cached_tokens += found;
  metrics_.prefix_cache_hit_tokens_total.Add(found);
  if (sequence.start.leg == Leg::kPrefill) Offer(sequence, sequence.blocks.cached());
}

// The step succeeded: whole blocks of the prompt are complete.
void Engine::KeepComputed(Sequence& sequence) {
  const auto& hashes = sequence.start.block_hashes;
  if (!options_.prefix_cache || hashes.empty()) return;
  const std::size_t complete = sequence.computed / contract::kBlockTokens;
  pool_.Keep(sequence.blocks, BlockChain(hashes).first(std::min(complete, hashes.size())));
}

void Engine::PublishCache(LoadReport& load) {
  load.kv_blocks_cached = pool_.cached_count();
  load.prompt_tokens_per_second = static_cast<float>(prompt_rate_.tokens_per_second());
  metrics_.kv_blocks_cached.Set(load.kv_blocks_cached);
  const auto evicted = static_cast<double>(pool_.evicted_total());
  metrics_.prefix_cache_evicted_blocks_total.Add(
      evicted - metrics_.prefix_cache_evicted_blocks_total.Value());
  if (cache_feed_ != nullptr) cache_feed_->Publish();
}

}  // namespace baleen::worker
