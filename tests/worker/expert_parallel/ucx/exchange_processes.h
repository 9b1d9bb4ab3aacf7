// Ranks of a group as processes: started, told of each other, killed in the end.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace baleen::worker {

// Runs `command` without output: whether it could be run and ended well.
bool RunQuietly(std::vector<std::string> command);

class ExchangeProcess {
 public:
  // Starts `command`: exchange_peer with its arguments, perhaps behind what sets it up.
  explicit ExchangeProcess(std::vector<std::string> command);
  ~ExchangeProcess();  // kills it
  ExchangeProcess(const ExchangeProcess&) = delete;
  ExchangeProcess& operator=(const ExchangeProcess&) = delete;

  void Tell(const std::string& line);
  // The next line that begins with `prefix`, without it. Waits 30 seconds at most; "" and a failure
  // of the test if there is none.
  std::string Await(const std::string& prefix);
  // Whether the process ends by itself within 30 seconds.
  bool Ends();
  void Kill();

 private:
  pid_t pid_ = -1;
  int to_ = -1;
  int from_ = -1;
  std::string heard_;
};

}  // namespace baleen::worker
