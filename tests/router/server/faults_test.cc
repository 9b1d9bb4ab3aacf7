// What a client sees when workers or clients fail: one ending with a reason, and nothing lost for
// others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <map>
#include <string>
#include <vector>

#include "proto/contract/status.h"
#include "router/server/generation/choice_reply.h"
#include "tests/router/server/router_fixture.h"

namespace baleen::router {
namespace {

using fakes::FakeWorker;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class RouterFaults : public RouterTest {
 protected:
  // The value of a trailing metadatum; "" without it.
  static std::string Trailing(const grpc::ClientContext& context, const std::string& key) {
    const auto& metadata = context.GetServerTrailingMetadata();
    const auto it = metadata.find(key);
    return it == metadata.end() ? "" : std::string(it->second.data(), it->second.size());
  }

  double Outcomes(const std::string& outcome) {
    return router_->metrics().RequestsTotal(outcome).Value();
  }
};

TEST_F(RouterFaults, WithoutWorkersUnavailableAtOnce) {
  const ChatResult result = Chat(Question());
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(result.status.error_message(), StartsWith("no_worker: "));
  EXPECT_EQ(Outcomes("no_worker"), 1);
}

TEST_F(RouterFaults, WithoutADecodeWorkerUnavailableAtOnce) {
  FakeWorker& prefill = Attach("prefill-0.0", {});
  for (const bool chat : {true, false}) {
    const grpc::Status status = chat ? Chat(Question()).status : Generate(Prompt({5})).status;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_THAT(status.error_message(), HasSubstr("no decode worker is attached"));
  }
  EXPECT_TRUE(prefill.state().starts.empty());
}

TEST_F(RouterFaults, AWorkerKilledMidStreamEndsItsStreamsAndOthersGoOn) {
  Attach("prefill-0.0", {});
  FakeWorker& victim = Attach("decode-0.0", {.hold_after = 4});
  const auto context = Context();
  const auto stream = stub_->Chat(context.get(), Question());
  v1::ChatChunk chunk;
  std::size_t tokens = 0;
  while (tokens < 4 && stream->Read(&chunk)) tokens += chunk.token_ids_size();
  ASSERT_EQ(tokens, 4u);
  victim.Kill();
  const ChatResult rest = ReadToEnd(*stream, tokens);
  EXPECT_EQ(rest.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(rest.status.error_message(), StartsWith("worker_lost: worker decode-0.0: "));
  EXPECT_EQ(Outcomes("worker_lost"), 1);

  Attach("decode-0.0", {.incarnation = 2, .reply = ReplyOf("a</think>b")});
  v1::GenerateRequest next = Prompt({5});
  next.mutable_stop()->set_max_tokens(3);
  EXPECT_TRUE(Generate(next).status.ok()) << "the next request is served";
}

TEST_F(RouterFaults, ALostWorkerBeforeTheFirstTokenIsReplaced) {
  FakeWorker& victim = Attach("mixed-0.0", {.hold_after = 0});
  auto result = std::async(std::launch::async, [this] { return Chat(Question()); });
  ASSERT_TRUE(victim.WaitFor([](const FakeWorker::State& s) { return s.starts.size() == 1; }));
  // Now, because a draw decides between two idle ranks.
  Attach("mixed-0.1", {.reply = ReplyOf("a</think>b"), .sequences_max = 1});
  victim.Kill();
  const ChatResult done = result.get();
  ASSERT_TRUE(done.status.ok()) << done.status.error_message();
  EXPECT_EQ(done.content, "b");
  EXPECT_EQ(done.last().timing().decode_worker(), "mixed-0.1");
  EXPECT_EQ(workers_[1]->state().starts.at(0).key().attempt(), 2u);
}

TEST_F(RouterFaults, ACancelledCallFreesBothRanks) {
  FakeWorker& prefill = Attach("prefill-0.0", {});
  FakeWorker& decode = Attach("decode-0.0", {.hold_after = 2});
  const auto context = Context();
  const auto stream = stub_->Chat(context.get(), Question());
  v1::ChatChunk chunk;
  ASSERT_TRUE(stream->Read(&chunk));
  ASSERT_EQ(decode.state().legs, 1u);
  const auto begin = std::chrono::steady_clock::now();
  context->TryCancel();
  EXPECT_TRUE(decode.WaitFor([](const FakeWorker::State& s) { return s.legs == 0; }));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  EXPECT_EQ(decode.state().cancels.size(), 1u);
  EXPECT_EQ(prefill.state().legs, 0u);
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(WaitFor([this] { return router_->admitted() == 0; }));
  EXPECT_TRUE(WaitFor([this] { return Outcomes("cancelled") == 1; }));
}

TEST_F(RouterFaults, ACallThatIsCancelledBeforeItIsReadDoesNoHarm) {
  Attach("mixed-0.0", {.reply = ReplyOf("a</think>b")});
  for (int i = 0; i < 20; ++i) {
    const auto context = Context();
    const auto stream = stub_->Chat(context.get(), Question());
    context->TryCancel();
    v1::ChatChunk chunk;
    while (stream->Read(&chunk)) {
    }
    stream->Finish();
  }
  EXPECT_TRUE(Chat(Question()).status.ok());
  EXPECT_TRUE(WaitFor([this] { return router_->admitted() == 0; }));
}

TEST_F(RouterFaults, DeadlinesReachTheWorkers) {
  FakeWorker& worker = Attach("mixed-0.0", {.hold_after = 1});
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  const ChatResult result = Chat(Question(), context);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(worker.WaitFor([](const FakeWorker::State& s) { return s.legs == 0; }));
  EXPECT_LE(worker.state().starts.at(0).deadline_ms(), 300u);
}

TEST_F(RouterFaults, TheRoutersOwnDeadlineHasAReason) {
  StartRouter({.request_wait_max = absl::Milliseconds(200)});
  Attach("mixed-0.0", {.hold_after = 1});
  const ChatResult result = Chat(Question());
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(result.status.error_message(), "deadline_exceeded: while running");
  EXPECT_EQ(Outcomes("deadline_exceeded"), 1);
}

TEST_F(RouterFaults, OverloadIsRefusedWithAHint) {
  StartRouter({.requests_max = 1});
  FakeWorker& worker = Attach("mixed-0.0", {.hold_after = 1});
  auto first = std::async(std::launch::async, [this] {
    v1::GenerateRequest request = Prompt({5});
    request.mutable_stop()->set_max_tokens(5);
    return Generate(request);
  });
  ASSERT_TRUE(worker.WaitFor([](const FakeWorker::State& s) { return s.legs == 1; }));
  const auto context = Context();
  const ChatResult refused = Chat(Question(), *context);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(),
              StartsWith("queue_full: 1 requests are inside, limit 1; retry after "));
  EXPECT_GE(std::stoi(Trailing(*context, "retry-after-ms")), 50);
  worker.Resume();
  EXPECT_TRUE(first.get().status.ok()) << "nothing lost for others";
}

TEST_F(RouterFaults, RequestsWaitForRoomOnTheWorkers) {
  FakeWorker& worker = Attach("mixed-0.0", {.hold_after = 1, .sequences_max = 1});
  std::vector<std::future<GenerateResult>> results;
  for (int i = 0; i < 3; ++i) {
    results.push_back(std::async(std::launch::async, [this] {
      v1::GenerateRequest request = Prompt({5});
      request.mutable_stop()->set_max_tokens(5);
      return Generate(request);
    }));
  }
  // The gauge counts those whose text is still worked on too: the worker must have its one first.
  ASSERT_TRUE(worker.WaitFor([](const FakeWorker::State& s) { return s.legs == 1; }));
  ASSERT_TRUE(WaitFor([this] { return router_->metrics().requests_waiting.Value() == 2; }));
  EXPECT_EQ(worker.state().starts.size(), 1u);
  worker.Resume();
  for (auto& result : results) EXPECT_TRUE(result.get().status.ok());
}

TEST_F(RouterFaults, AWaitForRoomIsBounded) {
  StartRouter({.queue_wait_max = absl::Milliseconds(100)});
  FakeWorker& worker = Attach("mixed-0.0", {.hold_after = 1, .sequences_max = 1});
  auto first = std::async(std::launch::async, [this] { return Generate(Prompt({5})); });
  ASSERT_TRUE(worker.WaitFor([](const FakeWorker::State& s) { return s.legs == 1; }));
  const auto context = Context();
  const ChatResult refused = Chat(Question(), *context);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("no worker had room within 100ms"));
  EXPECT_NE(Trailing(*context, "retry-after-ms"), "");
  worker.Resume();
  EXPECT_TRUE(first.get().status.ok());
}

// Many calls, each with more to read than HTTP/2 buffers for one; none is read.
class SlowClients : public RouterFaults, public ::testing::WithParamInterface<std::uint32_t> {
 protected:
  void StartImpatientRouter() {
    RouterTuning tuning;
    tuning.inference.shard.write_wait_max = absl::Milliseconds(200);
    StartRouter({}, tuning);
  }

  // Without this, gRPC's client takes megabytes that nobody reads, and more the faster the link is.
  std::unique_ptr<v1::Inference::Stub> StubOfASlowClient() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 16 * 1024);
    return v1::Inference::NewStub(grpc::CreateCustomChannel(
        router_->client_address(), grpc::InsecureChannelCredentials(), arguments));
  }
};

TEST_P(SlowClients, AreEnded) {
  StartImpatientRouter();
  FakeWorker& worker = Attach("mixed-0.0", {.change_hello = [](v1::Hello& hello) {
                                hello.mutable_model()->set_context_tokens(20'000);
                              }});
  const auto stub = StubOfASlowClient();
  v1::GenerateRequest request = Prompt({5});
  request.mutable_stop()->set_max_tokens(GetParam());
  request.set_logprobs(20);
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateChunk>>> streams;
  for (int i = 0; i < 10; ++i) {
    contexts.push_back(Context());
    streams.push_back(stub->Generate(contexts.back().get(), request));
  }
  EXPECT_TRUE(WaitFor([this] { return Outcomes("finished") + Outcomes("cancelled") == 10; }));
  EXPECT_TRUE(WaitFor([this] { return router_->admitted() == 0; }))
      << router_->admitted() << " calls of clients that do not read are still inside";
  EXPECT_TRUE(worker.WaitFor([](const FakeWorker::State& s) { return s.legs == 0; }));
  // Longer replies than may wait are cut off; shorter ones are complete, and wait for the client a
  // little.
  EXPECT_EQ(Outcomes("cancelled") > 0, GetParam() > kPendingTokensMax);
  streams.clear();
}

INSTANTIATE_TEST_SUITE_P(Table, SlowClients, ::testing::Values(3000, 12'000));

// Calls with one answer had no limit: each kept its place in admission for ever.
TEST_F(SlowClients, AreEndedToo) {
  StartImpatientRouter();
  const auto stub = StubOfASlowClient();
  v1::TokenizeRequest request;
  for (int i = 0; i < 80'000; ++i) request.mutable_text()->append(i % 3 == 0 ? "7+" : "x ");
  grpc::CompletionQueue queue;
  constexpr std::size_t kCalls = 4;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientAsyncResponseReader<v1::TokenizeResponse>>> calls;
  for (std::size_t i = 0; i < kCalls; ++i) {
    contexts.push_back(Context());
    calls.push_back(stub->PrepareAsyncTokenize(contexts.back().get(), request, &queue));
    calls.back()->StartCall();
    calls.back()->ReadInitialMetadata(&queue);  // sends the request; nothing reads the response
  }
  void* tag = nullptr;
  bool ok = false;
  for (std::size_t i = 0; i < kCalls; ++i) ASSERT_TRUE(queue.Next(&tag, &ok) && ok);
  EXPECT_TRUE(WaitFor([this] { return router_->admitted() == 0; }))
      << router_->admitted() << " calls of clients that do not read are still inside";
  std::vector<v1::TokenizeResponse> responses(kCalls);
  std::vector<grpc::Status> statuses(kCalls);
  for (std::size_t i = 0; i < kCalls; ++i) {
    calls[i]->Finish(&responses[i], &statuses[i], &queue);
    ASSERT_TRUE(queue.Next(&tag, &ok));
    EXPECT_FALSE(statuses[i].ok()) << "the router gave up before the client read";
  }
  queue.Shutdown();
  EXPECT_FALSE(queue.Next(&tag, &ok));
}

TEST_F(RouterFaults, StaleFramesNeverReachAClient) {
  FakeWorker& worker = Attach("mixed-0.0", {.hold_after = 1});
  const auto context = Context();
  v1::GenerateRequest request = Prompt({5});
  request.mutable_stop()->set_max_tokens(3);
  auto result = std::async(std::launch::async, [&] { return Generate(request); });
  ASSERT_TRUE(worker.WaitFor([](const FakeWorker::State& s) { return s.legs == 1; }));
  v1::WorkerMessage stale;
  *stale.mutable_step()->add_keys() = worker.state().starts.at(0).key();
  stale.mutable_step()->mutable_keys(0)->set_attempt(0);
  stale.mutable_step()->add_sequence(1);
  stale.mutable_step()->add_token_ids(99);
  worker.Send(stale);
  EXPECT_TRUE(WaitFor([this] { return router_->metrics().stale_frames_total.Value() == 1; }));
  worker.Resume();
  EXPECT_THAT(result.get().token_ids, ::testing::ElementsAre(40, 40, 40));
}

TEST_F(RouterFaults, DrainingFinishesWhatRunsAndAdmitsNothing) {
  FakeWorker& worker = Attach("mixed-0.0", {.hold_after = 1});
  v1::GenerateRequest request = Prompt({5});
  request.mutable_stop()->set_max_tokens(5);
  auto running = std::async(std::launch::async, [&] { return Generate(request); });
  ASSERT_TRUE(worker.WaitFor([](const FakeWorker::State& s) { return s.legs == 1; }));
  router_->StartDraining();
  const ChatResult refused = Chat(Question());
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(refused.status.error_message(), StartsWith("draining: "));
  worker.Resume();
  EXPECT_TRUE(running.get().status.ok());
  EXPECT_TRUE(WaitFor([this] { return router_->admitted() == 0; }));
}

TEST_F(RouterFaults, StoppingTellsTheClientsWhy) {
  FakeWorker& worker = Attach("mixed-0.0", {.hold_after = 1});
  auto running = std::async(std::launch::async, [this] { return Generate(Prompt({5})); });
  ASSERT_TRUE(worker.WaitFor([](const FakeWorker::State& s) { return s.legs == 1; }));
  router_.reset();
  const GenerateResult result = running.get();
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(result.status.error_message(), StartsWith("draining: "));
}

TEST_F(RouterFaults, WorkerErrorsKeepTheirReason) {
  FakeWorker& worker = Attach("mixed-0.0", {.hold_after = 1});
  auto running = std::async(std::launch::async, [this] { return Generate(Prompt({5})); });
  ASSERT_TRUE(worker.WaitFor([](const FakeWorker::State& s) { return s.legs == 1; }));
  v1::WorkerMessage message;
  v1::Ended& ended = *message.mutable_ended();
  *ended.mutable_key() = worker.state().starts.at(0).key();
  ended.set_reason(v1::END_REASON_ERROR);
  ended.set_tokens(1);
  const absl::Status fault = contract::MakeStatus(contract::Reason::kNumericFault, "NaN in logits");
  ended.set_code(static_cast<int>(fault.code()));
  ended.set_message(std::string(fault.message()));
  worker.Send(message);
  const GenerateResult result = running.get();
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(result.status.error_message(), "numeric_fault: worker mixed-0.0: NaN in logits");
}

}  // namespace
}  // namespace baleen::router
