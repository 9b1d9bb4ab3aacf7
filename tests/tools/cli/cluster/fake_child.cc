// A stand-in for baleen-router and baleen-worker that behaves as --model says. It logs its
// arguments, so that tests can see them.
//
//   good          announces itself, ends at SIGTERM
//   stubborn      announces itself, ignores SIGTERM
//   worker-error  the router is good, a worker prints a start-up error and exits with 1
//   router-error  the router prints a start-up error and exits with 1
//   worker-crash  the router is good, a worker dies of a signal before it is ready
//   babble        the router is good, a worker prints something that is no ready line
//   silent        says nothing, ends at SIGTERM
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

std::string Option(int count, char** arguments, const char* name) {
  for (int i = 1; i + 1 < count; ++i) {
    if (std::strcmp(arguments[i], name) == 0) return arguments[i + 1];
  }
  return "";
}

// As a real process: port 0 becomes some port, another one stays.
std::string Listening(const std::string& address, const char* port) {
  return address.ends_with(":0") ? "127.0.0.1:" + std::string(port) : address;
}

void Announce(int count, char** arguments, const std::string& role) {
  const std::string metrics = Option(count, arguments, "--metrics-listen");
  if (role.empty()) {
    std::printf("{\"grpc\": \"%s\", \"http\": \"%s\", \"workers\": \"%s\", \"metrics\": \"%s\"}\n",
                Listening(Option(count, arguments, "--listen"), "1001").c_str(),
                Listening(Option(count, arguments, "--http-listen"), "1005").c_str(),
                Listening(Option(count, arguments, "--worker-listen"), "1002").c_str(),
                Listening(metrics, "1003").c_str());
  } else {
    std::printf("{\"worker\": \"%s-0.0\", \"metrics\": \"%s\"}\n", role.c_str(),
                Listening(metrics, "1004").c_str());
  }
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** arguments) {
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  sigprocmask(SIG_BLOCK, &term, nullptr);
  std::string line = "arguments";
  for (int i = 1; i < count; ++i) line += std::string(" ") + arguments[i];
  std::fprintf(stderr, "%s\n", line.c_str());

  const std::string behaviour = Option(count, arguments, "--model");
  const std::string role = Option(count, arguments, "--role");
  const bool worker = !role.empty();
  if (behaviour == (worker ? "worker-error" : "router-error")) {
    std::fprintf(stderr, "error: model directory %s does not exist\n", behaviour.c_str());
    return 1;
  }
  if (worker && behaviour == "worker-crash") {
    std::fprintf(stderr, "about to crash\n");
    kill(getpid(), SIGKILL);
  }
  if (worker && behaviour == "babble") {
    std::printf("hello, I am a worker\n");
    std::fflush(stdout);
  } else if (behaviour != "silent") {
    Announce(count, arguments, role);
  }
  int number = 0;
  do {
    sigwait(&term, &number);
  } while (behaviour == "stubborn");
  return 0;
}
