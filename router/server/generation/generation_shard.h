// What the generations of one client thread share: where their replies come in, who they are, and
// when it is time to send.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "observability/metrics/metrics.h"
#include "router/access/access.h"
#include "router/admission/admission.h"
#include "router/dispatch/links.h"
#include "router/policy/cluster_view.h"
#include "router/server/generation/reply_inbox.h"
#include "router/server/generation/text_pool.h"
#include "router/server/request/models.h"
#include "router/server/request/prompt.h"

namespace baleen::router {

class Generation;

// Who has had a text job done.
class PromptTaker {
 public:
  virtual ~PromptTaker() = default;
  virtual void OnPrompt(absl::StatusOr<Prompt> prompt) = 0;
};

// Borrowed; all outlive the servers.
struct ServerParts {
  std::uint64_t router = 0;  // this router's random number
  const Clock& clock;
  const Models& models;
  Admission& admission;
  Access& access;
  RequestPort& port;
  std::function<std::shared_ptr<const ClusterView>()> view;  // any thread
  metrics::RouterMetrics& metrics;
};

struct GenerationOptions {
  absl::Duration request_wait_max = absl::Hours(1);  // the longest deadline of a request
  // Tokens that may wait for this thread; a million take it a few seconds.
  std::size_t inbox_tokens_max = 1'000'000;
  // After a part of a request, the next one waits this long for more to come; its first token and
  // its end do not wait. Fewer, larger messages cost clients and router less.
  absl::Duration flush_interval = absl::ZeroDuration();
};

// Does work on the shard's thread, soon and in order; drops it once that thread is ending. Any
// thread.
using PostWork = std::function<void(absl::AnyInvocable<void()>)>;

// Borrowed; all outlive the shard.
struct GenerationShardParts {
  const ServerParts& server;
  TextPool& text_pool;
  std::atomic<std::uint64_t>& numbers;  // the latest request number given by this router
};

// On the thread that runs what `post` is given. Work that text jobs post later must find the shard
// alive, or be dropped.
class GenerationShard {
 public:
  GenerationShard(const GenerationOptions& options, const GenerationShardParts& parts,
                  PostWork post);
  GenerationShard(const GenerationShard&) = delete;
  GenerationShard& operator=(const GenerationShard&) = delete;

  const GenerationOptions& options() const { return options_; }
  const ServerParts& parts() const { return parts_.server; }
  ReplySink& sink() { return inbox_; }

  // `count` request numbers in a row; the first one.
  std::uint64_t NextNumbers(std::uint32_t count) { return parts_.numbers.fetch_add(count) + 1; }

  // Prompts, and of generations also replies, for `number` go to whom entered, until it leaves.
  void Enter(std::uint64_t number, Generation& generation);
  void Enter(std::uint64_t number, PromptTaker& taker);
  void Leave(std::uint64_t number);

  // False when the pool is full. Otherwise the job's result goes to who is `number`, if it is still
  // there; the job is skipped if `gone` is set before it begins.
  bool SubmitText(std::uint64_t number, std::shared_ptr<const std::atomic<bool>> gone,
                  absl::AnyInvocable<absl::StatusOr<Prompt>()> job);

  // FlushWaited is called at the next tick.
  void FlushLater(std::uint64_t number) { to_flush_.push_back(number); }

  // To be called every few milliseconds when there is a flush interval, else rarely.
  void Tick();

 private:
  void TakeReplies();
  Generation* Find(std::uint64_t number) const;  // null: none, or another taker

  const GenerationOptions options_;
  const GenerationShardParts parts_;
  const PostWork post_;
  ReplyInbox inbox_;
  struct Entry {
    PromptTaker* taker = nullptr;
    Generation* generation = nullptr;  // the same, if it is one
  };
  std::unordered_map<std::uint64_t, Entry> entries_;
  std::vector<std::uint64_t> touched_;   // by the replies of a wake-up; reused
  std::vector<std::uint64_t> to_flush_;  // have parts whose time has not come
};

}  // namespace baleen::router
