#include "tools/cli/terminal/interrupts.h"

#include <poll.h>
#include <signal.h>

#include <array>
#include <utility>

#include "observability/base/status_macros.h"

namespace baleen::cli {

absl::StatusOr<std::unique_ptr<Interrupts>> Interrupts::Create() {
  BALEEN_ASSIGN_OR_RETURN(auto signals, SignalDescriptor::Create(StopSignals()));
  BALEEN_ASSIGN_OR_RETURN(auto ended, WakeUp::Create());
  BALEEN_ASSIGN_OR_RETURN(auto quit, WakeUp::Create());
  return std::unique_ptr<Interrupts>(
      new Interrupts(std::move(signals), std::move(ended), std::move(quit)));
}

Interrupts::Interrupts(SignalDescriptor signals, WakeUp ended_wake, WakeUp quit)
    : signals_(std::move(signals)),
      ended_wake_(std::move(ended_wake)),
      quit_(std::move(quit)),
      watcher_([this] { Watch(); }) {}

Interrupts::~Interrupts() {
  quit_.Set();
  watcher_.join();
}

void Interrupts::Watch() {
  for (;;) {
    std::array<pollfd, 2> wanted{{{.fd = signals_.number(), .events = POLLIN, .revents = 0},
                                  {.fd = quit_.number(), .events = POLLIN, .revents = 0}}};
    ::poll(wanted.data(), wanted.size(), -1);
    if (wanted[1].revents != 0) return;
    while (const auto number = signals_.Take()) OnSignal(*number);
  }
}

void Interrupts::OnSignal(int signal_number) {
  std::lock_guard lock(mutex_);
  if (signal_number != SIGINT || cancel_ == nullptr || cancelled_) {
    ended_ = true;
    ended_wake_.Set();
  }
  if (cancel_ != nullptr) cancel_();
  cancelled_ = true;
}

bool Interrupts::ended() const {
  std::lock_guard lock(mutex_);
  return ended_;
}

void Interrupts::End() { OnSignal(SIGTERM); }

Interrupts::Answering::Answering(Interrupts& interrupts, std::function<void()> cancel)
    : interrupts_(interrupts) {
  std::lock_guard lock(interrupts_.mutex_);
  if (interrupts_.ended_) cancel();
  interrupts_.cancel_ = std::move(cancel);
  interrupts_.cancelled_ = false;
}

Interrupts::Answering::~Answering() {
  std::lock_guard lock(interrupts_.mutex_);
  interrupts_.cancel_ = nullptr;
}

}  // namespace baleen::cli
