// The worker port over real gRPC: how streams begin and end.
#include "router/cluster/attach_server.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "proto/contract/status.h"
#include "tests/fakes/dispatch_twins.h"
#include "tests/fakes/fake_worker.h"

namespace baleen::router {
namespace {

using fakes::FakeDataPlane;
using fakes::FakeWorker;
using fakes::FakeWorkerOptions;
using ::testing::HasSubstr;

constexpr std::uint64_t kRouter = 4711;
constexpr std::chrono::seconds kPatience{30};

class AttachServerTest : public ::testing::Test {
 protected:
  void SetUp() override { Start({}); }

  void Start(const AttachServerOptions& options) {
    server_.reset();
    auto started = AttachServer::Start(options, {.router = kRouter,
                                                 .clock = clock_,
                                                 .registry = registry_,
                                                 .dispatcher = dispatcher_,
                                                 .metrics = metrics_});
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }

  FakeWorkerOptions Options() { return {.router = server_->address(), .heartbeats = false}; }

  // What happens on the server's thread shows in the view and in the metrics, soon.
  bool WaitFor(const std::function<bool()>& holds) {
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    while (!holds()) {
      if (std::chrono::steady_clock::now() > limit) return false;
      std::this_thread::yield();
    }
    return true;
  }

  // Time passes while the server runs: it publishes a view at each tick.
  void Pass(absl::Duration time) {
    constexpr absl::Duration kStep = absl::Milliseconds(200);
    for (; time > absl::ZeroDuration(); time -= kStep) {
      const auto before = registry_.view();
      clock_.Advance(std::min(time, kStep));
      EXPECT_TRUE(WaitFor([this, &before] { return registry_.view() != before; }));
    }
  }

  ManualClock clock_;
  metrics::Registry metrics_registry_;
  metrics::RouterMetrics metrics_{metrics_registry_, {.version = "test", .component = "router"}};
  MemorySink sink_;  // used on the server's thread
  Dispatcher dispatcher_{{}, clock_, [] { return std::uint64_t{1}; }};
  Registry registry_{{.models = {{.name = "nano", .token_ids = 512}}}, clock_, dispatcher_};
  FakeDataPlane plane_;
  std::unique_ptr<AttachServer> server_;
};

// Sends one message and returns the status that the stream ends with.
grpc::Status EndAfter(const std::string& address, const v1::WorkerMessage* message) {
  const auto stub =
      v1::Worker::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  const auto stream = stub->Attach(&context);
  if (message != nullptr) stream->Write(*message);
  v1::RouterMessage answer;
  while (stream->Read(&answer)) {
  }
  return stream->Finish();
}

TEST_F(AttachServerTest, WelcomesAWorkerAndForgetsItWhenItGoes) {
  FakeWorker worker(Options(), plane_);
  EXPECT_TRUE(worker.WaitWelcome());
  EXPECT_EQ(registry_.view()->workers.size(), 1u);
  EXPECT_TRUE(WaitFor([this] { return metrics_.workers_attached_mixed.Value() == 1; }));
  worker.Kill();
  EXPECT_TRUE(WaitFor([this] { return registry_.view()->workers.empty(); }));
  EXPECT_TRUE(WaitFor([this] { return metrics_.workers_attached_mixed.Value() == 0; }));
}

TEST_F(AttachServerTest, RefusesWithoutWelcome) {
  FakeWorkerOptions options = Options();
  options.change_hello = [](v1::Hello& hello) { hello.mutable_model()->set_name("other"); };
  FakeWorker worker(options, plane_);
  EXPECT_FALSE(worker.WaitWelcome());
  const grpc::Status end = worker.WaitEnd();
  EXPECT_EQ(end.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(end.error_message(), HasSubstr("model 'other' is not served by this router"));
}

TEST_F(AttachServerTest, TheFirstMessageMustBeHello) {
  v1::WorkerMessage load;
  load.mutable_load();
  EXPECT_EQ(EndAfter(server_->address(), &load).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(AttachServerTest, ARoleThatDoesNotExistIsRefused) {
  FakeWorkerOptions options = Options();
  options.change_hello = [](v1::Hello& hello) { hello.set_role(v1::ROLE_UNSPECIFIED); };
  FakeWorker worker(options, plane_);
  EXPECT_EQ(worker.WaitEnd().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(AttachServerTest, SilenceInsteadOfHelloIsBounded) {
  auto end = std::async(std::launch::async, EndAfter, server_->address(), nullptr);
  while (end.wait_for(std::chrono::milliseconds(20)) != std::future_status::ready) {
    clock_.Advance(absl::Milliseconds(500));
  }
  const grpc::Status status = end.get();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("no Hello within 5s"));
}

TEST_F(AttachServerTest, ASilentWorkerIsLostAfterThreeLeases) {
  FakeWorker worker(Options(), plane_);
  ASSERT_TRUE(worker.WaitWelcome());
  Pass(absl::Milliseconds(1500));
  EXPECT_TRUE(WaitFor([this] { return registry_.view()->workers.at(0).suspect; }));
  Pass(absl::Milliseconds(1600));
  const grpc::Status end = worker.WaitEnd();
  EXPECT_EQ(end.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(end.error_message(), HasSubstr("silent for 3100 ms"));
  EXPECT_TRUE(WaitFor([this] { return registry_.view()->workers.empty(); }));
}

TEST_F(AttachServerTest, ANameIsFreeOnceItsHolderIsGoneOrSilent) {
  FakeWorker first(Options(), plane_);
  ASSERT_TRUE(first.WaitWelcome());
  FakeWorkerOptions options = Options();
  options.incarnation = 2;
  {
    FakeWorker second(options, plane_);
    EXPECT_EQ(second.WaitEnd().error_code(), grpc::StatusCode::ALREADY_EXISTS);
    EXPECT_EQ(registry_.view()->workers.at(0).info->incarnation, 1u);
  }
  Pass(absl::Milliseconds(1200));
  FakeWorker second(options, plane_);
  EXPECT_TRUE(second.WaitWelcome());
  EXPECT_EQ(first.WaitEnd().error_code(), grpc::StatusCode::ALREADY_EXISTS);
  FakeWorker zombie(Options(), plane_);
  EXPECT_EQ(zombie.WaitEnd().error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(registry_.view()->workers.at(0).info->incarnation, 2u);
  second.Kill();
  ASSERT_TRUE(WaitFor([this] { return registry_.view()->workers.empty(); }));
  FakeWorker again(Options(), plane_);
  EXPECT_TRUE(again.WaitWelcome()) << "it was refused for ever";
}

// What waits was measured once in a tick: a burst between two could take any amount of memory.
TEST_F(AttachServerTest, AFrameWithoutRoomEndsTheStream) {
  Start({.send_queue_bytes_max = 1000});
  FakeWorker worker(Options(), plane_);
  ASSERT_TRUE(worker.WaitWelcome());
  const auto submit = [this](std::uint64_t number, std::size_t prompt_tokens) {
    server_->Submit({.id = {kRouter, number},
                     .model = "nano",
                     .prompt = std::make_shared<const TokenIds>(prompt_tokens, 5),
                     .tokens_max = 5,
                     .sink = &sink_});
  };
  submit(1, 500);
  EXPECT_TRUE(worker.WaitFor([](const FakeWorker::State& s) { return s.starts.size() == 1; }));
  submit(2, 1000);
  submit(3, 10);  // frames are in order or not at all
  worker.WaitEnd();
  ASSERT_TRUE(WaitFor([this] { return registry_.view()->workers.empty(); }));
  EXPECT_EQ(worker.state().starts.size(), 1u);
  server_.reset();
  EXPECT_TRUE(sink_.endings.at(1).status.ok()) << sink_.endings.at(1).status;
  EXPECT_EQ(contract::ReasonOf(sink_.endings.at(2).status), contract::Reason::kWorkerLost);
  EXPECT_THAT(std::string(sink_.endings.at(2).status.message()),
              HasSubstr("it does not take its frames"));
  EXPECT_TRUE(sink_.endings.contains(3));
}

struct FrameCase {
  std::string name;
  std::function<void(v1::WorkerMessage&)> make;
  std::string message;
};

class BadFrames : public AttachServerTest, public ::testing::WithParamInterface<FrameCase> {};

TEST_P(BadFrames, EndTheStream) {
  FakeWorkerOptions options = Options();
  options.name = "mixed-0.1";
  FakeWorker good(Options(), plane_);
  FakeWorker bad(options, plane_);
  ASSERT_TRUE(good.WaitWelcome());
  ASSERT_TRUE(bad.WaitWelcome());
  v1::WorkerMessage message;
  GetParam().make(message);
  bad.Send(message);
  const grpc::Status end = bad.WaitEnd();
  EXPECT_EQ(end.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(end.error_message(), HasSubstr(GetParam().message));
  EXPECT_EQ(registry_.view()->workers.size(), 1u) << "nothing lost for others";
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadFrames,
    ::testing::Values(FrameCase{"ListsOfDifferentLengths",
                                [](v1::WorkerMessage& m) { m.mutable_step()->add_token_ids(5); },
                                "lists of 0"},
                      FrameCase{"TokenOutsideOfVocabulary",
                                [](v1::WorkerMessage& m) {
                                  m.mutable_step()->add_keys();
                                  m.mutable_step()->add_sequence(0);
                                  m.mutable_step()->add_token_ids(512);
                                },
                                "vocabulary 512"},
                      FrameCase{"AReasonThatDoesNotExist",
                                [](v1::WorkerMessage& m) { m.mutable_ended(); },
                                "reason 0 does not exist"},
                      FrameCase{"ASecondHello", [](v1::WorkerMessage& m) { m.mutable_hello(); },
                                "a second Hello"}),
    [](const auto& info) { return info.param.name; });

TEST_F(AttachServerTest, StaleFramesAreDroppedAndCounted) {
  FakeWorker worker(Options(), plane_);
  ASSERT_TRUE(worker.WaitWelcome());
  v1::WorkerMessage message;
  v1::RequestKey& key = *message.mutable_step()->add_keys();
  key.set_router(kRouter);
  key.set_number(99);
  key.set_attempt(1);
  message.mutable_step()->add_sequence(0);
  message.mutable_step()->add_token_ids(5);
  worker.Send(message);
  worker.Send(message);
  EXPECT_TRUE(WaitFor([this] { return metrics_.stale_frames_total.Value() == 2; }));
  EXPECT_EQ(registry_.view()->workers.size(), 1u);
}

TEST_F(AttachServerTest, AMessageThatIsTooLargeEndsTheStream) {
  FakeWorker worker(Options(), plane_);
  ASSERT_TRUE(worker.WaitWelcome());
  v1::WorkerMessage message;
  message.mutable_ended()->set_message(std::string(5u << 20, 'x'));
  worker.Send(message);
  worker.WaitEnd();
  EXPECT_TRUE(WaitFor([this] { return registry_.view()->workers.empty(); }));
}

TEST_F(AttachServerTest, APortInUseIsAClearError) {
  const auto second =
      AttachServer::Start({.listen = server_->address()}, {.router = 1,
                                                           .clock = clock_,
                                                           .registry = registry_,
                                                           .dispatcher = dispatcher_,
                                                           .metrics = metrics_});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("cannot listen for workers on " + server_->address()));
}

TEST_F(AttachServerTest, AddressesAreChecked) {
  for (const char* address :
       {"", "localhost", ":1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"}) {
    const auto server = AttachServer::Start({.listen = address}, {.router = 1,
                                                                  .clock = clock_,
                                                                  .registry = registry_,
                                                                  .dispatcher = dispatcher_,
                                                                  .metrics = metrics_});
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument) << address;
  }
}

}  // namespace
}  // namespace baleen::router
