// A real cluster of this build: `baleen up --json`, its addresses and its processes.
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/cli/client/inference_client.h"
#include "tools/cli/cluster/child_process.h"

namespace baleen::integration {

inline constexpr char kModel[] = "models/nano";

class TestCluster {
 public:
  // `arguments` of `baleen up` besides --json and --model. Fails the test, and gives null, if it
  // does not come up.
  static std::unique_ptr<TestCluster> Start(const std::vector<std::string>& arguments,
                                            const std::string& model = kModel);
  // Kills what is left.
  ~TestCluster();

  const std::string& grpc() const { return grpc_; }
  pid_t pid() const { return up_->pid(); }
  const std::map<std::string, pid_t>& pids() const { return pids_; }  // router and workers
  // The one line on stdout.
  const std::string& line() const { return line_; }

  // A sample of a process's metrics page; nullopt when page or sample is not there.
  std::optional<double> Metric(const std::string& process, const std::string& series) const;
  // KV blocks in use on all workers together; nullopt while a page does not answer.
  std::optional<double> KvBlocksUsed() const;

  // The pid that `process` has now, from the log of `baleen up`; after a restart another one than
  // in pids().
  pid_t CurrentPid(const std::string& process);

  // What `baleen up` wrote to stderr so far.
  const std::string& Log();

  // Sends `signal_number` to `baleen up` and waits for its end: the wait status; nullopt when it
  // takes too long.
  std::optional<int> Stop(int signal_number);

 private:
  TestCluster() = default;
  bool ReadReadyLine();
  void ReadPipes();

  std::optional<cli::ChildProcess> up_;
  std::string out_;
  std::string log_;
  std::string line_;
  std::string grpc_;
  std::map<std::string, std::string> metrics_;  // process -> host:port
  std::map<std::string, pid_t> pids_;
};

// Clusters that all tests of this program share, started when first asked for, stopped at its end.
TestCluster& SplitCluster();  // 1 prefill, 1 decode worker
TestCluster& MixedCluster();  // 1 mixed worker, with small prefill chunks

}  // namespace baleen::integration
