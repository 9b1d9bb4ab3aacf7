// Ctrl-C and its relatives, for a program that waits for a person or streams an answer.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>

#include "absl/status/statusor.h"
#include "tools/cli/cluster/signals.h"

namespace baleen::cli {

// Watches the stop signals on a thread of its own. Thread-safe.
//
// While an answer is being streamed, the first SIGINT cancels it; everything else - a second
// SIGINT, a SIGINT at the prompt, SIGTERM, SIGHUP - ends the session.
class Interrupts {
 public:
  // Precondition: BlockSignals was called, and nobody else takes the stop signals.
  static absl::StatusOr<std::unique_ptr<Interrupts>> Create();
  ~Interrupts();

  // While it lives, signals call `cancel` (on the watching thread).
  class Answering {
   public:
    Answering(Interrupts& interrupts, std::function<void()> cancel);
    ~Answering();
    Answering(const Answering&) = delete;
    Answering& operator=(const Answering&) = delete;

   private:
    Interrupts& interrupts_;
  };

  // Whether the session is over.
  bool ended() const;
  // Readable once the session is over: to poll next to the keyboard.
  int number() const { return ended_wake_.number(); }
  // As if SIGTERM had come; for what ends a session from inside.
  void End();

 private:
  Interrupts(SignalDescriptor signals, WakeUp ended_wake, WakeUp quit);
  void Watch();
  void OnSignal(int signal_number);

  SignalDescriptor signals_;
  WakeUp ended_wake_;
  WakeUp quit_;
  mutable std::mutex mutex_;
  std::function<void()> cancel_;  // guarded by mutex_; null at the prompt
  bool cancelled_ = false;        // guarded by mutex_
  bool ended_ = false;            // guarded by mutex_
  std::thread watcher_;
};

}  // namespace baleen::cli
