// A few threads for text work (templates, tokenizing), so that a long prompt does not hold up the
// streams.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"

namespace baleen::router {

struct TextPoolOptions {
  std::size_t threads = 2;
  std::size_t queue_max = 256;  // jobs that wait for a thread
};

// Thread-safe.
class TextPool {
 public:
  explicit TextPool(const TextPoolOptions& options);
  // Finishes the jobs that have begun; drops the others.
  ~TextPool();
  TextPool(const TextPool&) = delete;
  TextPool& operator=(const TextPool&) = delete;

  // False when the queue is full; the job is dropped then.
  bool Submit(absl::AnyInvocable<void()> job);

 private:
  void Work();

  const std::size_t queue_max_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  std::deque<absl::AnyInvocable<void()>> queue_;
  bool stopping_ = false;

  std::vector<std::thread> threads_;
};

}  // namespace baleen::router
