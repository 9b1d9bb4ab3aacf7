// Events a core can write: streams of chat answers over loopback, a token source that hands over
// one step of all of them at a time, as an engine does, and a client process that reads and throws
// away. Time is the CPU time of the serving thread; what comes before (dispatch, detokenizing) is
// not in it.
#include <benchmark/benchmark.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdio>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "observability/base/clock.h"
#include "router/server/http/server.h"
#include "router/server/openai/reply/event_writer.h"

namespace baleen::router {
namespace {

constexpr int kStepsPerIteration = 50;

class SourceHandler final : public http::Handler {
 public:
  std::optional<http::Response> Refuse(const http::RequestHead&) override { return std::nullopt; }
  std::unique_ptr<http::Activity> Handle(http::Request, http::Exchange& exchange) override {
    exchange.Begin({.content_type = "text/event-stream"});
    auto stream = std::make_unique<Stream>(exchange);
    streams_.push_back(stream.get());
    Write(*stream, 1);
    return stream;
  }
  http::Response MakeError(int code, std::string_view) override { return {.code = code}; }

  // A step: `tokens` for each stream whose client keeps up. Events written.
  std::size_t Step(int tokens) {
    std::size_t events = 0;
    for (Stream* stream : streams_) {
      if (!stream->exchange.writable()) continue;
      Write(*stream, tokens);
      ++events;
    }
    return events;
  }
  std::size_t streams() const { return streams_.size(); }

 private:
  struct Stream final : http::Activity {
    explicit Stream(http::Exchange& way)
        : exchange(way),
          writer(
              {.request_id = "0123456789abcdef-1", .model = "nano", .model_digest = "0123456789"},
              {.stream = true}, nullptr) {}
    http::Exchange& exchange;
    openai::EventWriter writer;
  };

  void Write(Stream& stream, int tokens) {
    ReplyPart part;
    for (int i = 0; i < tokens; ++i) {
      part.delta.content += " token";
      part.token_ids.push_back(i);
    }
    out_.clear();
    stream.writer.Append(std::move(part), &out_);
    stream.exchange.Send(out_);
  }

  std::vector<Stream*> streams_;
  std::string out_;
};

// A process of its own, so that its work is not counted. Ends when it is killed.
pid_t StartClient(int port, int streams) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  const int epoll = ::epoll_create1(0);
  constexpr char kRequest[] = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
  for (int i = 0; i < streams; ++i) {
    const int number = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(static_cast<std::uint16_t>(port));
    if (::connect(number, reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) ::_exit(1);
    (void)!::write(number, kRequest, sizeof(kRequest) - 1);
    epoll_event event = {.events = EPOLLIN, .data = {.fd = number}};
    ::epoll_ctl(epoll, EPOLL_CTL_ADD, number, &event);
  }
  static char buffer[1 << 16];
  epoll_event ready[256];
  while (true) {
    const int count = ::epoll_wait(epoll, ready, 256, -1);
    for (int i = 0; i < count; ++i) {
      if (::read(ready[i].data.fd, buffer, sizeof(buffer)) <= 0) ::_exit(0);
    }
  }
}

double ThreadCpuSeconds() {
  timespec now = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

template <typename Work>
auto OnLoop(http::Loop& loop, Work work) {
  std::promise<decltype(work())> done;
  loop.Post([&] { done.set_value(work()); });
  return done.get_future().get();
}

double ResidentKilobytes() {
  long pages = 0;
  if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return static_cast<double>(pages) * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1024;
}

// Arguments: streams, tokens in an event.
void Events(benchmark::State& state) {
  rlimit files = {};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  const int streams = static_cast<int>(state.range(0));
  const int tokens = static_cast<int>(state.range(1));
  auto server = http::Server::Listen({}, SystemClock());
  if (!server.ok()) return state.SkipWithError("can not listen");
  const std::string& address = (*server)->address();
  int port = 0;
  std::from_chars(address.data() + address.rfind(':') + 1, address.data() + address.size(), port);
  const pid_t client = StartClient(port, streams);
  SourceHandler handler;
  const double before = ResidentKilobytes();
  (*server)->Start({&handler});
  http::Loop& loop = (*server)->loop(0);
  while (OnLoop(loop, [&] { return handler.streams(); }) < static_cast<std::size_t>(streams)) {
  }
  const double idle = ResidentKilobytes() - before;
  std::size_t events = 0;
  double cpu = 0;
  for (auto _ : state) {
    double used = 0;
    for (int step = 0; step < kStepsPerIteration; ++step) {
      used += OnLoop(loop, [&] {
        const double start = ThreadCpuSeconds();
        events += handler.Step(tokens);
        return ThreadCpuSeconds() - start;
      });
    }
    state.SetIterationTime(used);
    cpu += used;
  }
  state.counters["events_per_cpu_s"] = static_cast<double>(events) / cpu;
  state.counters["tokens_per_cpu_s"] = static_cast<double>(events) * tokens / cpu;
  state.counters["kB_per_idle_stream"] = idle / streams;
  ::kill(client, SIGKILL);
  ::waitpid(client, nullptr, 0);
  (*server)->Stop();
}
BENCHMARK(Events)->Args({100, 1})->Args({1000, 1})->Args({1000, 4})->UseManualTime();

}  // namespace
}  // namespace baleen::router

BENCHMARK_MAIN();
