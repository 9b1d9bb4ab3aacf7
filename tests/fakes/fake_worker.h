// A worker without engine or model that speaks the real Attach protocol over gRPC, for tests of the
// router.
//
// Its reply to every prompt is fixed (FakeWorkerOptions::reply). It can be told to hold each
// request after some tokens, to be killed, and to send any frame a test likes.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "proto/baleen/v1/worker.grpc.pb.h"

namespace baleen::fakes {

// Stands for the data plane of all fake workers of a test: which transfers have arrived.
class FakeDataPlane {
 public:
  // `arrived` is called once, now or when Complete is, unless `owner` is forgotten before.
  void Expect(std::uint64_t transfer, const void* owner, std::function<void()> arrived);
  void Complete(std::uint64_t transfer);
  // Nothing of `owner` is called any more.
  void Forget(const void* owner);

 private:
  struct Expected {
    const void* owner = nullptr;
    std::function<void()> arrived;
  };

  std::mutex mutex_;  // held while `arrived` is called
  std::set<std::uint64_t> complete_;
  std::map<std::uint64_t, Expected> expected_;
};

struct FakeWorkerOptions {
  std::string router;  // host:port
  std::string name = "mixed-0.0";
  v1::Role role = v1::ROLE_MIXED;
  std::uint64_t incarnation = 1;
  // The token ids of every reply; ends with STOP after the last, or with LENGTH at tokens_max.
  // Empty: goes on until tokens_max with `filler`.
  std::vector<std::int32_t> reply;
  std::int32_t filler = 40;
  // Requests stop after this many tokens until Resume.
  std::uint32_t hold_after = 0xffffffff;
  // Of each prompt, as it says at the end of the leg that computes it.
  std::uint32_t cached_tokens = 0;
  std::uint32_t sequences_max = 64;
  std::uint32_t kv_blocks_total = 10'000;
  // Heartbeats; off for workers that fall silent.
  bool heartbeats = true;
  // Anything else of the Hello.
  std::function<void(v1::Hello&)> change_hello;
};

class FakeWorker {
 public:
  // Dials at once. `plane` outlives all workers.
  FakeWorker(FakeWorkerOptions options, FakeDataPlane& plane);
  ~FakeWorker();
  FakeWorker(const FakeWorker&) = delete;
  FakeWorker& operator=(const FakeWorker&) = delete;

  // True once the router has said Welcome; false when the stream ended instead, or time ran out.
  bool WaitWelcome();
  // The status with which the stream has ended; DEADLINE_EXCEEDED when it has not in time.
  grpc::Status WaitEnd();
  // True once `holds` is true of the state; false when time ran out.
  struct State {
    std::vector<v1::Start> starts;
    std::vector<v1::RequestKey> cancels;
    std::vector<v1::RequestKey> releases;
    std::size_t legs = 0;  // started and not ended: what holds KV blocks in a real worker
  };
  bool WaitFor(const std::function<bool(const State&)>& holds);
  State state();

  // Lets held requests go on to their end.
  void Resume();
  // Ends the stream as if the process had died.
  void Kill();
  // Sends a frame as it is.
  void Send(const v1::WorkerMessage& message);

 private:
  struct FakeLeg {
    v1::Start start;
    std::uint32_t emitted = 0;
    bool has_kv = false;  // decode leg: the transfer has arrived
    bool prompt_told = false;
  };

  void Run();
  void Beat();
  void Take(const v1::RouterMessage& message);
  void TakeStart(const v1::Start& start);
  void Withdraw(const v1::RequestKey& key);
  void Advance();                 // all legs, as far as they may go
  bool AdvanceLeg(FakeLeg& leg);  // true when it has ended
  // Prompt token i, from 1 on, is worth -i / 100; the most probable ones there are 100, 101, ...
  void EmitPromptLogprobs(const FakeLeg& leg);
  void Emit(FakeLeg& leg, std::uint32_t sequence);
  void EmitEnded(const FakeLeg& leg, v1::EndReason reason, std::uint64_t kv_bytes);
  void Write(const v1::WorkerMessage& message);
  std::uint32_t ReplyTokens(const v1::Start& start) const;

  const FakeWorkerOptions options_;
  FakeDataPlane& plane_;
  std::unique_ptr<v1::Worker::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::RouterMessage>> stream_;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_, writes to the stream too:
  State state_;
  std::map<std::uint64_t, FakeLeg> legs_;  // by request number
  std::uint64_t step_ = 0;
  bool holding_ = true;
  bool welcomed_ = false;
  bool writable_ = true;
  bool ended_ = false;
  grpc::Status end_;

  std::thread reader_;
  std::thread heart_;
};

}  // namespace baleen::fakes
