#include "tools/cli/cluster/supervisor.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/status_macros.h"
#include "tools/cli/cluster/child_process.h"
#include "tools/cli/cluster/line_splitter.h"
#include "tools/cli/cluster/signals.h"

namespace baleen::cli {
namespace {

constexpr std::string_view kOurName = "up";
// With this a child opens the one line that says why it can not start.
constexpr std::string_view kErrorPrefix = "error: ";
constexpr auto kProbeInterval = std::chrono::milliseconds(20);

// Asks a question on its own thread until the answer is yes, then sets a WakeUp.
class Probe {
 public:
  Probe(std::function<bool()> question, WakeUp& answered)
      : thread_([question = std::move(question), &answered](const std::stop_token& stop) {
          std::mutex mutex;
          std::condition_variable_any never;
          std::unique_lock lock(mutex);
          while (!stop.stop_requested()) {
            if (question()) return answered.Set();
            never.wait_for(lock, stop, kProbeInterval, [] { return false; });
          }
        }) {}

 private:
  std::jthread thread_;
};

}  // namespace

class Supervisor::Loop {
 public:
  // What the loop waits on besides the children.
  struct Wakers {
    SignalDescriptor child_signals;
    SignalDescriptor stop_signals;
    WakeUp stop;
    WakeUp answered;
  };

  Loop(SupervisorOptions options, const Clock& clock, Wakers wakers)
      : options_(std::move(options)),
        clock_(clock),
        specs_(ChildrenOf(options_.spec)),
        supervision_(specs_, options_.limits, clock),
        wakers_(std::move(wakers)),
        slots_(specs_.size()) {}

  absl::Status Run();
  void RequestStop() { wakers_.stop.Set(); }

 private:
  // A child over all its lives.
  struct Slot {
    std::optional<ChildProcess> process;
    LineSplitter out;
    LineSplitter err;
    bool out_open = false;
    bool err_open = false;
    bool line_seen = false;  // the ready line of this life
    std::optional<ReadyLine> ready;
    std::string last_error;  // held back until it is known whether the whole start fails for it
    std::string last_line;
  };

  void Handle(const Event& event);
  void Do(const LaunchChild& action);
  void Do(const SignalChild& action);
  void Do(const RestartLater& action);
  void Do(const BeginProbe&);
  void Do(const Announce&);
  void Do(const Finish& action);

  void PollOnce();
  int PollTimeoutMs() const;
  void Drain(ChildIndex child);
  bool DrainStream(int number, LineSplitter& splitter, const LineSplitter::OnLine& on_line);
  void OnOutLine(ChildIndex child, std::string_view line);
  void OnErrLine(ChildIndex child, std::string_view line);
  void ReapChildren();
  void OnEnd(ChildIndex child, int wait_status);
  RunningCluster Running() const;
  void Say(std::string_view line) { options_.on_log(kOurName, line); }

  const SupervisorOptions options_;
  const Clock& clock_;
  const std::vector<ChildSpec> specs_;
  Supervision supervision_;
  Wakers wakers_;
  std::vector<Slot> slots_;
  std::vector<Event> pending_;  // events that came up while an action was carried out
  std::optional<absl::Status> finished_;
  std::optional<Probe> probe_;  // last: its thread uses what is above
};

absl::Status Supervisor::Loop::Run() {
  Handle(Begin{});
  while (!finished_) PollOnce();
  probe_.reset();
  return *finished_;
}

void Supervisor::Loop::Handle(const Event& event) {
  pending_.push_back(event);
  while (!pending_.empty() && !finished_) {
    const Event next = pending_.front();
    pending_.erase(pending_.begin());
    for (const Action& action : supervision_.Handle(next)) {
      std::visit([this](const auto& a) { Do(a); }, action);
    }
  }
}

void Supervisor::Loop::Do(const LaunchChild& action) {
  Slot& slot = slots_[action.child];
  const ChildSpec& spec = specs_[action.child];
  const auto known = [](const Slot& s) { return s.ready ? &*s.ready : nullptr; };
  const std::string& executable =
      spec.kind == ChildKind::kRouter ? options_.router_executable : options_.worker_executable;
  auto process = ChildProcess::Launch(
      {.executable = executable,
       .arguments = ArgumentsOf(options_.spec, spec, known(slots_[0]), known(slot)),
       .environment = EnvironmentOf(spec)});
  if (!process.ok()) {
    pending_.push_back(
        ChildEnded{.child = action.child, .why = std::string(process.status().message())});
    return;
  }
  slot.process.emplace(*std::move(process));
  slot.out_open = slot.err_open = true;
  slot.line_seen = false;
  slot.last_error.clear();
  slot.last_line.clear();
  if (!options_.tells_starts) return;
  Say(fmt::format("{} started, pid {}", spec.name, slot.process->pid()));
}

void Supervisor::Loop::Do(const SignalChild& action) {
  if (slots_[action.child].process) slots_[action.child].process->Signal(action.number);
}

void Supervisor::Loop::Do(const RestartLater& action) {
  Say(fmt::format("{} ended: {}; starting it again in {:.1f} s", specs_[action.child].name,
                  action.why, absl::ToDoubleSeconds(action.delay)));
}

void Supervisor::Loop::Do(const BeginProbe&) {
  probe_.emplace([this, cluster = Running()] { return options_.answers(cluster); },
                 wakers_.answered);
}

void Supervisor::Loop::Do(const Announce&) { options_.on_ready(Running()); }

void Supervisor::Loop::Do(const Finish& action) { finished_ = action.status; }

void Supervisor::Loop::PollOnce() {
  std::vector<pollfd> descriptors;
  const auto watch = [&](int number) {
    descriptors.push_back({.fd = number, .events = POLLIN, .revents = 0});
  };
  for (const int number : {wakers_.child_signals.number(), wakers_.stop_signals.number(),
                           wakers_.stop.number(), wakers_.answered.number()}) {
    watch(number);
  }
  for (const Slot& slot : slots_) {
    if (slot.process && slot.out_open) watch(slot.process->stdout_number());
    if (slot.process && slot.err_open) watch(slot.process->stderr_number());
  }
  if (::poll(descriptors.data(), descriptors.size(), PollTimeoutMs()) < 0) {
    BALEEN_CHECK(errno == EINTR, "poll of our own descriptors fails only by a signal");
  }
  for (ChildIndex i = 0; i < slots_.size(); ++i) Drain(i);
  while (wakers_.child_signals.Take()) {
  }
  ReapChildren();  // always: several ends may share one SIGCHLD
  while (const auto number = wakers_.stop_signals.Take()) {
    Say(fmt::format("{}: stopping", ::strsignal(*number)));
    Handle(StopRequested{});
  }
  if (wakers_.stop.Clear()) Handle(StopRequested{});
  if (wakers_.answered.Clear()) Handle(ClusterAnswers{});
  Handle(TimePassed{});
}

int Supervisor::Loop::PollTimeoutMs() const {
  const absl::Duration left = supervision_.NextDeadline() - clock_.Monotonic();
  if (left == absl::InfiniteDuration()) return -1;
  const std::int64_t ms = absl::ToInt64Milliseconds(left) + 1;  // rounded up: not too early
  return static_cast<int>(std::clamp<std::int64_t>(ms, 0, INT_MAX));
}

void Supervisor::Loop::Drain(ChildIndex child) {
  Slot& slot = slots_[child];
  if (!slot.process) return;
  if (slot.out_open) {
    slot.out_open = DrainStream(slot.process->stdout_number(), slot.out,
                                [&](std::string_view line) { OnOutLine(child, line); });
  }
  if (slot.err_open) {
    slot.err_open = DrainStream(slot.process->stderr_number(), slot.err,
                                [&](std::string_view line) { OnErrLine(child, line); });
  }
}

// False once the stream is over. Takes at most 256 KiB, so that a child that floods its log does
// not starve the others.
bool Supervisor::Loop::DrainStream(int number, LineSplitter& splitter,
                                   const LineSplitter::OnLine& on_line) {
  std::array<char, 16 * 1024> buffer;
  for (int rounds = 0; rounds < 16; ++rounds) {
    const ssize_t got = ::read(number, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN;
    if (got == 0) {
      splitter.Finish(on_line);
      return false;
    }
    splitter.Append({buffer.data(), static_cast<std::size_t>(got)}, on_line);
  }
  return true;
}

void Supervisor::Loop::OnOutLine(ChildIndex child, std::string_view line) {
  Slot& slot = slots_[child];
  if (slot.line_seen) {
    options_.on_log(specs_[child].name, line);
    return;
  }
  slot.line_seen = true;
  auto ready = ParseReadyLine(specs_[child].kind, line);
  if (!ready.ok()) {
    slot.last_error = std::string(ready.status().message());
    slot.process->Signal(SIGKILL);
    return;
  }
  slot.ready = *std::move(ready);
  Handle(ChildReady{child});
}

void Supervisor::Loop::OnErrLine(ChildIndex child, std::string_view line) {
  Slot& slot = slots_[child];
  if (!slot.line_seen && line.starts_with(kErrorPrefix)) {
    slot.last_error = std::string(line.substr(kErrorPrefix.size()));
    return;
  }
  slot.last_line = std::string(line);
  options_.on_log(specs_[child].name, line);
}

void Supervisor::Loop::ReapChildren() {
  for (ChildIndex i = 0; i < slots_.size() && !finished_; ++i) {
    Slot& slot = slots_[i];
    const auto wait_status = slot.process ? slot.process->Reap() : std::nullopt;
    if (!wait_status) continue;
    Drain(i);  // what it wrote last
    slot.process.reset();
    OnEnd(i, *wait_status);
  }
}

void Supervisor::Loop::OnEnd(ChildIndex child, int wait_status) {
  const std::string how = DescribeWaitStatus(wait_status);
  Slot& slot = slots_[child];
  slot.out = LineSplitter();
  slot.err = LineSplitter();
  std::string why = slot.last_error;
  if (why.empty() && slot.line_seen) why = how;
  if (why.empty()) {
    why = fmt::format("it ended before it was ready: {}", how);
    if (!slot.last_line.empty()) why += fmt::format("; its last line: {}", slot.last_line);
  }
  Handle(ChildEnded{child, std::move(why), /*clean=*/EndedInOrder(wait_status)});
}

RunningCluster Supervisor::Loop::Running() const {
  RunningCluster cluster;
  for (ChildIndex i = 0; i < slots_.size(); ++i) {
    cluster.push_back({.spec = specs_[i],
                       .ready = slots_[i].ready.value_or(ReadyLine{}),
                       .pid = slots_[i].process ? slots_[i].process->pid() : -1});
  }
  return cluster;
}

Supervisor::Supervisor(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
Supervisor::~Supervisor() = default;

absl::StatusOr<std::unique_ptr<Supervisor>> Supervisor::Create(SupervisorOptions options,
                                                               const Clock& clock) {
  BALEEN_RETURN_IF_ERROR(Validate(options.spec));
  BALEEN_ASSIGN_OR_RETURN(auto child_signals, SignalDescriptor::Create({SIGCHLD}));
  BALEEN_ASSIGN_OR_RETURN(auto stop_signals, SignalDescriptor::Create(options.stop_signals));
  BALEEN_ASSIGN_OR_RETURN(auto stop, WakeUp::Create());
  BALEEN_ASSIGN_OR_RETURN(auto answered, WakeUp::Create());
  return std::unique_ptr<Supervisor>(new Supervisor(
      std::make_unique<Loop>(std::move(options), clock,
                             Loop::Wakers{std::move(child_signals), std::move(stop_signals),
                                          std::move(stop), std::move(answered)})));
}

absl::Status Supervisor::Run() { return loop_->Run(); }
void Supervisor::RequestStop() { loop_->RequestStop(); }

absl::StatusOr<Executables> FindExecutables() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return absl::InternalError("cannot read /proc/self/exe: is /proc mounted?");
  const auto folder = self.parent_path();
  const Executables found{.router = folder / "baleen-router", .worker = folder / "baleen-worker"};
  for (const std::string& path : {found.router, found.worker}) {
    if (::access(path.c_str(), X_OK) != 0) {
      return absl::NotFoundError(
          fmt::format("{} is missing: build the targets baleen-router and baleen-worker", path));
    }
  }
  return found;
}

}  // namespace baleen::cli
