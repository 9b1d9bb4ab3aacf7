// AttachClient against a router in the same process, over real gRPC.
#include "worker/attach/attach_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "proto/contract/limits.h"
#include "proto/contract/status.h"
#include "tests/worker/attach/fake_router.h"

namespace baleen::worker {
namespace {

using Body = v1::WorkerMessage::BodyCase;
using testing::HasSubstr;

class AttachTest : public testing::Test {
 protected:
  struct Options {
    AttachOptions attach;
    InboxLimits inbox;
  };

  void Attach(std::vector<std::string> routers, Options options = {}) {
    client_.reset();
    inbox_ = std::make_unique<Inbox>(options.inbox);
    discovery_ = std::make_unique<StaticDiscovery>(std::move(routers));
    options.attach.link.backoff.first = absl::Milliseconds(1);
    client_ =
        std::make_unique<AttachClient>(options.attach, *discovery_, *inbox_, metrics_, cache_);
    client_->Start({.name = "mixed-0.0", .incarnation = 5, .role = Role::kMixed},
                   [] { return LoadReport{.kv_blocks_used = 33}; });
  }

  // The next command that the client has put into the inbox.
  template <typename T>
  T Await() {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (pending_.empty() && std::chrono::steady_clock::now() < limit) {
      inbox_->WaitFor(absl::Milliseconds(100));
      for (Command& command : inbox_->Take()) pending_.push_back(std::move(command));
    }
    if (pending_.empty() || !std::holds_alternative<T>(pending_.front())) {
      ADD_FAILURE() << "another command, or none";
      return {};
    }
    T command = std::get<T>(std::move(pending_.front()));
    pending_.erase(pending_.begin());
    return command;
  }

  static v1::RouterMessage StartMessage(std::uint64_t number, std::uint64_t router = 7) {
    v1::RouterMessage message;
    v1::Start& start = *message.mutable_start();
    start.mutable_key()->set_router(router);
    start.mutable_key()->set_number(number);
    start.mutable_key()->set_attempt(1);
    start.set_leg(v1::LEG_WHOLE);
    start.add_prompt_token_ids(3);
    start.mutable_sampling()->set_top_p(1.0f);
    start.set_tokens_max(4);
    return message;
  }

  static v1::RouterMessage CancelMessage(std::uint64_t number, std::uint64_t router = 7) {
    v1::RouterMessage message;
    message.mutable_cancel()->mutable_key()->set_router(router);
    message.mutable_cancel()->mutable_key()->set_number(number);
    message.mutable_cancel()->mutable_key()->set_attempt(1);
    return message;
  }

  static StepReport Report(std::uint64_t number, bool with_end) {
    const contract::RequestKey key{{7, number}, 1};
    StepReport report{.step = 1};
    report.tokens.push_back({.key = key, .token = {.token = 12}});
    if (with_end) report.ended.push_back({.key = key, .reason = EndReason::kLength, .tokens = 1});
    return report;
  }

  metrics::Registry registry_;
  metrics::WorkerMetrics metrics_{registry_, {.version = "0", .component = "worker"}};
  std::vector<Command> pending_;
  std::unique_ptr<Inbox> inbox_;
  std::unique_ptr<StaticDiscovery> discovery_;
  const CacheFeed* cache_ = nullptr;
  std::unique_ptr<AttachClient> client_;
};

TEST_F(AttachTest, ARequestGoesInAndItsTokensAndEndComeOut) {
  FakeRouter router;
  Attach({router.address()});
  router.Send(StartMessage(1));
  const auto start = Await<StartCommand>();
  EXPECT_EQ(router.hello().worker(), "mixed-0.0");
  EXPECT_EQ(start.key, (contract::RequestKey{{7, 1}, 1}));
  EXPECT_EQ(metrics_.routers_attached.Value(), 1);
  client_->Deliver(start.link, Report(1, true));
  const v1::StepOutput step = router.Await(Body::kStep).step();
  EXPECT_EQ(step.token_ids(0), 12);
  const v1::Ended ended = router.Await(Body::kEnded).ended();
  EXPECT_EQ(ended.reason(), v1::END_REASON_LENGTH);
}

TEST_F(AttachTest, ControlFramesReachTheInbox) {
  FakeRouter router;
  Attach({router.address()});
  router.Send(CancelMessage(4));
  v1::RouterMessage release;
  *release.mutable_release()->mutable_key() = CancelMessage(5).cancel().key();
  router.Send(release);
  router.Send(v1::RouterMessage());  // of a newer protocol, for all we know
  v1::RouterMessage drain;
  drain.mutable_drain();
  router.Send(drain);
  EXPECT_EQ(Await<CancelCommand>().key.id.number, 4u);
  EXPECT_EQ(Await<ReleaseCommand>().key.id.number, 5u);
  Await<DrainCommand>();
}

TEST_F(AttachTest, HeartbeatsCarryTheLoad) {
  FakeRouter router({.heartbeat_ms = 10});
  Attach({router.address()});
  EXPECT_EQ(router.Await(Body::kLoad).load().kv_blocks_used(), 33u);
  router.Await(Body::kLoad);
}

// Everything at the beginning of a stream, then what changed, after the tokens of the step.
TEST_F(AttachTest, RoutersHearWhatIsCached) {
  const contract::BlockHash old{.bytes = {1}};
  const contract::BlockHash young{.bytes = {2}};
  const auto bytes = [](const contract::BlockHash& hash) {
    return std::string(hash.bytes.begin(), hash.bytes.end());
  };
  CacheFeed feed({.blocks = 4});
  feed.Stored(3, old);
  feed.Publish();
  FakeRouter router;
  cache_ = &feed;
  Attach({router.address()});
  v1::CacheEvents events = router.Await(Body::kCacheEvents).cache_events();
  EXPECT_TRUE(events.cleared());
  EXPECT_EQ(events.stored(), bytes(old));
  EXPECT_EQ(events.evicted(), "");

  router.Send(StartMessage(1));
  const LinkId link = Await<StartCommand>().link;
  feed.Evicted(3, old);
  feed.Stored(3, young);
  feed.Publish();
  client_->Deliver(link, Report(1, false));
  EXPECT_EQ(router.AwaitNext().body_case(), Body::kStep);
  events = router.Await(Body::kCacheEvents).cache_events();
  EXPECT_FALSE(events.cleared());
  EXPECT_EQ(events.stored(), bytes(young));
  EXPECT_EQ(events.evicted(), bytes(old));

  router.EndStream();
  router.AwaitHellos(2);
  events = router.Await(Body::kCacheEvents).cache_events();
  EXPECT_TRUE(events.cleared());
  EXPECT_EQ(events.stored(), bytes(young));
}

TEST_F(AttachTest, HeartbeatsCarryWhatChangedInTheCacheMeanwhile) {
  CacheFeed feed({.blocks = 4});
  FakeRouter router({.heartbeat_ms = 10});
  cache_ = &feed;
  Attach({router.address()});
  EXPECT_TRUE(router.Await(Body::kCacheEvents).cache_events().cleared());
  feed.Stored(0, {.bytes = {1}});
  feed.Publish();
  EXPECT_EQ(router.Await(Body::kCacheEvents).cache_events().stored().size(), 16u);
}

// The router takes an ended request out of nothing but its own books: a load that still had it made
// a free worker look busy until the next heartbeat.
TEST_F(AttachTest, WhatThePromptWasWorthGoesBeforeItsFirstToken) {
  FakeRouter router;
  Attach({router.address()});
  router.Send(StartMessage(1));
  const auto start = Await<StartCommand>();
  StepReport report = Report(1, true);
  report.prompt_logprobs.push_back({.key = start.key, .entries = {std::nullopt}});
  client_->Deliver(start.link, std::move(report));
  const v1::WorkerMessage first = router.AwaitNext();
  ASSERT_EQ(first.body_case(), Body::kPromptLogprobs);
  EXPECT_EQ(first.prompt_logprobs().logprobs_size(), 1);
  EXPECT_EQ(router.AwaitNext().body_case(), Body::kStep);
}

TEST_F(AttachTest, ALoadGoesBeforeAnEndThatNoStepCarries) {
  FakeRouter router;
  Attach({router.address()});
  router.Send(StartMessage(1));
  const auto start = Await<StartCommand>();
  StepReport cancelled;
  cancelled.ended.push_back({.key = start.key, .reason = EndReason::kCancelled});
  client_->Deliver(start.link, std::move(cancelled));
  const v1::WorkerMessage load = router.AwaitNext();
  ASSERT_EQ(load.body_case(), Body::kLoad);
  EXPECT_EQ(load.load().kv_blocks_used(), 33u);
  EXPECT_EQ(router.AwaitNext().body_case(), Body::kEnded);
}

TEST_F(AttachTest, MalformedStartsAreAnsweredAndTheStreamLives) {
  FakeRouter router;
  Attach({router.address()});
  v1::RouterMessage unknown_leg = StartMessage(1);
  unknown_leg.mutable_start()->set_leg(static_cast<v1::Leg>(77));
  router.Send(unknown_leg);
  v1::Ended ended = router.Await(Body::kEnded).ended();
  EXPECT_EQ(ended.key().number(), 1u);
  EXPECT_EQ(ended.reason(), v1::END_REASON_ERROR);
  EXPECT_EQ(ended.code(), static_cast<int>(grpc::StatusCode::INVALID_ARGUMENT));
  EXPECT_THAT(ended.message(), HasSubstr("leg 77"));

  router.Send(StartMessage(2, /*router=*/8));
  ended = router.Await(Body::kEnded).ended();
  EXPECT_THAT(ended.message(), HasSubstr("not of this router"));
  router.Send(CancelMessage(3, /*router=*/8));  // dropped and counted
  router.Send(StartMessage(4));
  EXPECT_EQ(Await<StartCommand>().key.id.number, 4u);
  EXPECT_EQ(metrics_.stale_frames_total.Value(), 2);
}

TEST_F(AttachTest, AFullInboxIsATypedRefusal) {
  FakeRouter router;
  Attach({router.address()}, {.inbox = {.starts_max = 1, .controls_max = 1}});
  router.Send(StartMessage(1));
  router.Send(StartMessage(2));
  const v1::Ended ended = router.Await(Body::kEnded).ended();
  EXPECT_EQ(ended.key().number(), 2u);
  EXPECT_EQ(ended.code(), static_cast<int>(grpc::StatusCode::RESOURCE_EXHAUSTED));
  // A cancel that cannot be taken ends the stream, and with it its request.
  router.Send(CancelMessage(1));
  router.Send(CancelMessage(2));
  router.AwaitHellos(2);
  const LinkId link = Await<StartCommand>().link;
  EXPECT_EQ(Await<CancelCommand>().key.id.number, 1u);
  EXPECT_EQ(Await<LinkLostCommand>().link, link);
}

TEST_F(AttachTest, ALostStreamIsToldAndDialledAgain) {
  FakeRouter router;
  Attach({router.address()});
  router.Send(StartMessage(1));
  const LinkId first = Await<StartCommand>().link;
  router.EndStream();
  EXPECT_EQ(Await<LinkLostCommand>().link, first);
  router.AwaitHellos(2);
  client_->Deliver(first, Report(1, true));  // for nobody
  router.Send(StartMessage(2));
  const LinkId second = Await<StartCommand>().link;
  EXPECT_NE(first, second);
  client_->Deliver(second, Report(2, true));
  EXPECT_EQ(router.Await(Body::kEnded).ended().key().number(), 2u);
}

TEST_F(AttachTest, AWorkerOutlivesARouterRestart) {
  auto router = std::make_unique<FakeRouter>();
  const std::string address = router->address();
  Attach({address});
  router->AwaitHellos(1);
  router->Send(StartMessage(1));
  Await<StartCommand>();
  router.reset();
  Await<LinkLostCommand>();
  EXPECT_EQ(metrics_.routers_attached.Value(), 0);
  FakeRouter successor({.listen = address, .number = 8});
  successor.AwaitHellos(1);
  successor.Send(StartMessage(1, 8));
  EXPECT_EQ(Await<StartCommand>().key.id.router, 8u);
}

TEST_F(AttachTest, RoutersAreServedSideBySide) {
  FakeRouter one({.number = 7});
  FakeRouter two({.number = 8});
  Attach({one.address(), two.address(), one.address()});
  one.Send(StartMessage(1, 7));
  const LinkId first = Await<StartCommand>().link;
  two.Send(StartMessage(1, 8));
  const LinkId second = Await<StartCommand>().link;
  EXPECT_NE(first, second);
  client_->Deliver(second, Report(22, true));
  client_->Deliver(first, Report(11, true));
  EXPECT_EQ(one.Await(Body::kEnded).ended().key().number(), 11u);
  EXPECT_EQ(two.Await(Body::kEnded).ended().key().number(), 22u);
}

TEST_F(AttachTest, ARefusedWorkerTriesAgain) {
  FakeRouter router(
      {.welcomes = false,
       .refusal = grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "a newer incarnation")});
  Attach({router.address()});
  router.AwaitHellos(3);
  EXPECT_EQ(metrics_.routers_attached.Value(), 0);
  EXPECT_TRUE(inbox_->Take().empty()) << "no link was ever made, so none is lost";
}

TEST_F(AttachTest, ARouterThatNeverWelcomesIsGivenUp) {
  FakeRouter router({.welcomes = false});
  Options options;
  options.attach.link.stream.welcome_wait = absl::Milliseconds(20);
  Attach({router.address()}, options);
  router.AwaitHellos(2);
  EXPECT_TRUE(inbox_->Take().empty());
}

TEST_F(AttachTest, FramesBeforeWelcomeOrASecondWelcomeEndTheStream) {
  FakeRouter silent({.welcomes = false});
  Attach({silent.address()});
  silent.Send(StartMessage(1));
  silent.AwaitHellos(2);
  EXPECT_TRUE(inbox_->Take().empty());

  FakeRouter eager;
  Attach({eager.address()});
  v1::RouterMessage welcome;
  welcome.mutable_welcome()->set_router(7);
  eager.Send(welcome);
  Await<LinkLostCommand>();
  eager.AwaitHellos(2);
}

TEST_F(AttachTest, AMessageBeyondTheLimitEndsTheStreamOnly) {
  FakeRouter router;
  Attach({router.address()});
  v1::RouterMessage huge = StartMessage(1);
  huge.mutable_start()->set_peer_data_plane_address(
      std::string(contract::kMessageBytesMax + 1, 'a'));
  router.Send(huge);
  Await<LinkLostCommand>();
  router.AwaitHellos(2);
  router.Send(StartMessage(2));
  EXPECT_EQ(Await<StartCommand>().key.id.number, 2u);
}

// A report that fills socket buffers fast.
StepReport LargeReport() {
  StepReport report{.step = 1};
  for (std::uint64_t number = 1; number <= 64; ++number) {
    TokenOutput token{.key = {{7, number}, 1}, .token = {.token = 1}, .with_logprobs = true};
    token.token.top.assign(20, {1'000'000, -1.5f});
    report.tokens.push_back(std::move(token));
  }
  return report;
}

TEST_F(AttachTest, ASlowRouterLosesItsStreamAndNotTheWorkerItsMemory) {
  FakeRouter router({.reads = false});
  Options options;
  options.attach.link.stream.reports_max = 50;
  Attach({router.address()}, options);
  router.Send(StartMessage(1));
  const LinkId link = Await<StartCommand>().link;
  // Socket and flow-control buffers take some; after that the queue fills, and overflows.
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (metrics_.routers_attached.Value() == 1 && std::chrono::steady_clock::now() < limit) {
    client_->Deliver(link, LargeReport());
  }
  EXPECT_EQ(Await<LinkLostCommand>().link, link);
}

// Few reports, but each with much of a prompt.
TEST_F(AttachTest, ASlowRouterDoesNotMakeLogProbabilitiesPileUp) {
  FakeRouter router({.reads = false});
  Options options;
  options.attach.link.stream.prompt_logprobs_max = 100'000;
  Attach({router.address()}, options);
  router.Send(StartMessage(1));
  const auto start = Await<StartCommand>();
  const TokenLogprobs entry{.logprob = -1.0f, .top = {20, {5, -2.0f}}};
  for (std::uint32_t i = 0; i < 900 && metrics_.routers_attached.Value() == 1; ++i) {
    StepReport report;
    report.prompt_logprobs.push_back({.key = start.key, .first = 1 + 500 * i});
    report.prompt_logprobs[0].entries.assign(500, entry);
    client_->Deliver(start.link, std::move(report));
  }
  EXPECT_EQ(Await<LinkLostCommand>().link, start.link);
}

TEST_F(AttachTest, StopSendsTheLastWords) {
  FakeRouter router;
  Attach({router.address()});
  router.Send(StartMessage(1));
  const LinkId link = Await<StartCommand>().link;
  for (std::uint64_t number = 1; number <= 50; ++number) {
    client_->Deliver(link, Report(number, true));
  }
  client_->Stop();
  for (std::uint64_t number = 1; number <= 50; ++number) {
    EXPECT_EQ(router.Await(Body::kEnded).ended().key().number(), number);
  }
  Await<LinkLostCommand>();
}

// A host that takes connections and never says a word.
class SilentHost {
 public:
  SilentHost() : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t bytes = sizeof any;
    auto* address = reinterpret_cast<sockaddr*>(&any);
    EXPECT_EQ(bind(socket_, address, bytes), 0);
    EXPECT_EQ(listen(socket_, 8), 0);
    EXPECT_EQ(getsockname(socket_, address, &bytes), 0);
    address_ = "127.0.0.1:" + std::to_string(ntohs(any.sin_port));
  }
  ~SilentHost() { close(socket_); }
  const std::string& address() const { return address_; }
  void AwaitConnection() {
    pollfd events{.fd = socket_, .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&events, 1, 60'000), 1);
  }

 private:
  const int socket_;
  std::string address_;
};

// The stop waited, twice flush_wait, for the last words on a stream that had never been opened.
TEST_F(AttachTest, StopDoesNotWaitForARouterThatIsNotThere) {
  SilentHost host;
  Options options;
  options.attach.link.stream.flush_wait = absl::Minutes(1);
  Attach({host.address(), "127.0.0.1:1"}, options);
  host.AwaitConnection();
  const auto begun = std::chrono::steady_clock::now();
  client_->Stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(10));
  EXPECT_TRUE(inbox_->Take().empty());
}

// Answers what the test says.
class ScriptedDiscovery final : public Discovery {
 public:
  absl::StatusOr<std::vector<std::string>> Resolve() override {
    std::lock_guard lock(mutex_);
    ++asked_;
    changed_.notify_all();
    return answer_;
  }
  // Returns once the client has acted upon the answer.
  void Answer(absl::StatusOr<std::vector<std::string>> answer) {
    {
      std::lock_guard lock(mutex_);
      answer_ = std::move(answer);
    }
    AwaitAsked(2);
  }
  void AwaitAsked(std::uint64_t times) {
    std::unique_lock lock(mutex_);
    const std::uint64_t goal = asked_ + times;
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return asked_ >= goal; }));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t asked_ = 0;
  absl::StatusOr<std::vector<std::string>> answer_ = std::vector<std::string>{};
};

class DiscoveryTest : public AttachTest {
 protected:
  void SetUp() override {
    inbox_ = std::make_unique<Inbox>(InboxLimits{});
    AttachOptions options{.resolve_every = absl::Milliseconds(5)};
    options.link.backoff.first = absl::Milliseconds(1);
    client_ = std::make_unique<AttachClient>(options, names_, *inbox_, metrics_);
    client_->Start({.name = "mixed-0.0"}, [] { return LoadReport{}; });
  }
  void TearDown() override { client_.reset(); }

  // That the router is attached: a request goes in and its end comes out.
  LinkId Serve(FakeRouter& router, std::uint64_t number, std::uint64_t request) {
    router.Send(StartMessage(request, number));
    const LinkId link = Await<StartCommand>().link;
    client_->Deliver(link, Report(request, true));
    EXPECT_EQ(router.Await(Body::kEnded).ended().key().number(), request);
    return link;
  }

  ScriptedDiscovery names_;
};

TEST_F(DiscoveryTest, AnErrorKeepsTheAnswerBefore) {
  FakeRouter router;
  names_.Answer(std::vector<std::string>{router.address()});
  const LinkId link = Serve(router, 7, 1);
  names_.Answer(absl::UnavailableError("the name server is away"));
  EXPECT_EQ(Serve(router, 7, 2), link);
  EXPECT_EQ(router.hellos(), 1u);
}

// A router that drains is unready, and leaves the names of a headless service while it finishes its
// requests: the worker cut its stream at once, and the requests were lost.
TEST_F(DiscoveryTest, ARouterThatLeavesTheNamesKeepsItsStreamAndIsNotDialledAgain) {
  FakeRouter one({.number = 7});
  FakeRouter two({.number = 8});
  names_.Answer(std::vector<std::string>{one.address()});
  const LinkId link = Serve(one, 7, 1);
  names_.Answer(std::vector<std::string>{two.address()});
  Serve(two, 8, 1);
  EXPECT_EQ(Serve(one, 7, 2), link);
  one.EndStream();
  EXPECT_EQ(Await<LinkLostCommand>().link, link);
  names_.AwaitAsked(20);  // some hundred times as long as the first pause between dials
  EXPECT_EQ(one.hellos(), 1u);
  Serve(two, 8, 2);
  names_.Answer(std::vector<std::string>{one.address(), two.address()});
  one.AwaitHellos(2);
  EXPECT_NE(Serve(one, 7, 3), link) << "it is dialled anew";
}

TEST_F(DiscoveryTest, ARouterThatComesBackInTimeKeepsItsStream) {
  FakeRouter router;
  names_.Answer(std::vector<std::string>{router.address()});
  const LinkId link = Serve(router, 7, 1);
  names_.Answer(std::vector<std::string>{});
  names_.Answer(std::vector<std::string>{router.address()});
  EXPECT_EQ(Serve(router, 7, 2), link);
  router.EndStream();
  EXPECT_EQ(Await<LinkLostCommand>().link, link);
  router.AwaitHellos(2);
  EXPECT_NE(Serve(router, 7, 3), link) << "and is dialled again after it";
}

}  // namespace
}  // namespace baleen::worker
