// The worker port over real gRPC: how streams begin and end.
#include "router/cluster/attach_server.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

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
  void SetUp() override {
    auto started = AttachServer::Start({}, {.router = kRouter,
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
  clock_.Advance(absl::Milliseconds(1500));
  EXPECT_TRUE(WaitFor([this] { return registry_.view()->workers.at(0).suspect; }));
  clock_.Advance(absl::Milliseconds(1600));
  const grpc::Status end = worker.WaitEnd();
  EXPECT_EQ(end.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(end.error_message(), HasSubstr("silent for 3100 ms"));
  EXPECT_TRUE(WaitFor([this] { return registry_.view()->workers.empty(); }));
}

TEST_F(AttachServerTest, ANewIncarnationEndsTheOldStream) {
  FakeWorker old_worker(Options(), plane_);
  ASSERT_TRUE(old_worker.WaitWelcome());
  FakeWorkerOptions options = Options();
  options.incarnation = 2;
  FakeWorker new_worker(options, plane_);
  EXPECT_TRUE(new_worker.WaitWelcome());
  EXPECT_EQ(old_worker.WaitEnd().error_code(), grpc::StatusCode::ALREADY_EXISTS);
  FakeWorker zombie(Options(), plane_);
  EXPECT_EQ(zombie.WaitEnd().error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(registry_.view()->workers.at(0).info->incarnation, 2u);
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
