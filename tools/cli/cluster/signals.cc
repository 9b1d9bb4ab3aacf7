#include "tools/cli/cluster/signals.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

namespace baleen::cli {
namespace {

sigset_t SetOf(const std::vector<int>& signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : signals) sigaddset(&set, number);
  return set;
}

}  // namespace

std::vector<int> StopSignals() { return {SIGINT, SIGTERM, SIGHUP}; }

void BlockSignals() {
  std::vector<int> signals = StopSignals();
  signals.push_back(SIGCHLD);
  const sigset_t set = SetOf(signals);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

absl::StatusOr<SignalDescriptor> SignalDescriptor::Create(const std::vector<int>& signals) {
  const sigset_t set = SetOf(signals);
  Descriptor descriptor(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!descriptor.open()) {
    return absl::InternalError(fmt::format("signalfd: {}", std::strerror(errno)));
  }
  return SignalDescriptor(std::move(descriptor));
}

std::optional<int> SignalDescriptor::Take() {
  signalfd_siginfo info;
  if (::read(number(), &info, sizeof(info)) != static_cast<ssize_t>(sizeof(info))) {
    return std::nullopt;
  }
  return static_cast<int>(info.ssi_signo);
}

absl::StatusOr<WakeUp> WakeUp::Create() {
  Descriptor descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!descriptor.open()) {
    return absl::InternalError(fmt::format("eventfd: {}", std::strerror(errno)));
  }
  return WakeUp(std::move(descriptor));
}

void WakeUp::Set() {
  const std::uint64_t one = 1;
  // A full counter means that it is set already.
  [[maybe_unused]] const ssize_t written = ::write(number(), &one, sizeof(one));
}

bool WakeUp::Clear() {
  std::uint64_t count = 0;
  return ::read(number(), &count, sizeof(count)) == static_cast<ssize_t>(sizeof(count));
}

}  // namespace baleen::cli
