#include "router/server/generation/generation_shard.h"

#include <algorithm>
#include <utility>

#include "router/server/generation/generation.h"

namespace baleen::router {

GenerationShard::GenerationShard(const GenerationOptions& options,
                                 const GenerationShardParts& parts, PostWork post)
    : options_(options),
      parts_(parts),
      post_(std::move(post)),
      inbox_(options.inbox_tokens_max, [this] { post_([this] { TakeReplies(); }); }) {}

void GenerationShard::Enter(std::uint64_t number, Generation& generation) {
  entries_.emplace(number, Entry{&generation, &generation});
}

void GenerationShard::Enter(std::uint64_t number, PromptTaker& taker) {
  entries_.emplace(number, Entry{&taker, nullptr});
}

void GenerationShard::Leave(std::uint64_t number) { entries_.erase(number); }

Generation* GenerationShard::Find(std::uint64_t number) const {
  const auto it = entries_.find(number);
  return it == entries_.end() ? nullptr : it->second.generation;
}

bool GenerationShard::SubmitText(std::uint64_t number,
                                 std::shared_ptr<const std::atomic<bool>> gone,
                                 absl::AnyInvocable<absl::StatusOr<Prompt>()> job) {
  return parts_.text_pool.Submit(
      [this, number, gone = std::move(gone), job = std::move(job)]() mutable {
        if (gone->load()) return;
        post_([this, number, prompt = job()]() mutable {
          const auto it = entries_.find(number);
          if (it != entries_.end()) it->second.taker->OnPrompt(std::move(prompt));
        });
      });
}

void GenerationShard::TakeReplies() {
  for (Reply& reply : inbox_.Take()) {
    const std::uint64_t number = reply.id.number;
    Generation* generation = Find(number);
    if (generation == nullptr) continue;
    generation->OnReply(std::move(reply));
    touched_.push_back(number);
  }
  for (const std::uint64_t number : touched_) {
    if (Generation* generation = Find(number)) generation->Flush();
  }
  touched_.clear();
}

void GenerationShard::Tick() {
  // An edge may let its generation go from within a flush, so they are looked up one by one.
  std::vector<std::uint64_t> waited;
  waited.swap(to_flush_);
  for (const std::uint64_t number : waited) {
    if (Generation* generation = Find(number)) generation->FlushWaited();
  }
}

}  // namespace baleen::router
