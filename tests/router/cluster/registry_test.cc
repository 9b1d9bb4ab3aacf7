// Who may attach, who replaces whom, and when silence means lost.
#include "router/cluster/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "proto/contract/status.h"
#include "tests/fakes/dispatch_twins.h"

namespace baleen::router {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::uint32_t kProtocol = contract::kProtocolVersion;

class RegistryTest : public ::testing::Test {
 protected:
  absl::StatusOr<WorkerId> Attach(const WorkerInfo& info, MemoryLink& link) {
    return registry_.Attach(info, kProtocol, link);
  }

  void Submit() {
    dispatcher_.Submit({.id = {9, ++submitted_},
                        .model = "nano",
                        .prompt = std::make_shared<const TokenIds>(10, 1),
                        .tokens_max = 5,
                        .sink = &sink_});
  }

  // Time passes while the router runs. Ends with a Tick.
  void Pass(absl::Duration time) {
    constexpr absl::Duration kTick = absl::Milliseconds(250);
    for (; time > kTick; time -= kTick) {
      clock_.Advance(kTick);
      registry_.Tick();
    }
    clock_.Advance(time);
    registry_.Tick();
  }

  ManualClock clock_;
  MemorySink sink_;
  Dispatcher dispatcher_{{}, clock_, [] { return std::uint64_t{1}; }};
  Registry registry_{
      {.models = {{.name = "nano", .token_ids = 500}}, .workers_max = 3}, clock_, dispatcher_};
  std::uint64_t submitted_ = 0;
};

struct HelloCase {
  std::string name;
  std::function<void(WorkerInfo&)> change;
  absl::StatusCode code;
  std::string message;
};

class BadHellos : public RegistryTest, public ::testing::WithParamInterface<HelloCase> {};

TEST_P(BadHellos, AreRefusedWithTheFieldAndTheLimit) {
  MemoryLink first_link;
  ASSERT_TRUE(Attach(MakeWorkerInfo("decode-0.0", Role::kDecode), first_link).ok());
  WorkerInfo info = MakeWorkerInfo("prefill-0.0", Role::kPrefill);
  GetParam().change(info);
  MemoryLink link;
  const auto result = Attach(info, link);
  EXPECT_EQ(result.status().code(), GetParam().code) << result.status();
  EXPECT_THAT(std::string(result.status().message()), HasSubstr(GetParam().message));
  EXPECT_EQ(registry_.view()->workers.size(), 1u);
  EXPECT_FALSE(first_link.closed.has_value()) << "nothing lost for others";
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

INSTANTIATE_TEST_SUITE_P(
    Table, BadHellos,
    ::testing::Values(
        HelloCase{"NoName", [](WorkerInfo& i) { i.name = ""; }, kInvalid, "worker"},
        HelloCase{"LongName", [](WorkerInfo& i) { i.name = std::string(129, 'w'); }, kInvalid,
                  "worker has 129 bytes; it must be at most 128"},
        HelloCase{"OddName", [](WorkerInfo& i) { i.name = "a\nb"; }, kInvalid, "malformed"},
        HelloCase{"NoIncarnation", [](WorkerInfo& i) { i.incarnation = 0; }, kInvalid,
                  "incarnation is 0"},
        HelloCase{"NoAddress", [](WorkerInfo& i) { i.data_plane_address = ""; }, kInvalid,
                  "data_plane_address is empty"},
        HelloCase{"LongAddress",
                  [](WorkerInfo& i) { i.data_plane_address = std::string(4097, 'x'); }, kInvalid,
                  "at most 4096"},
        HelloCase{"NoModelName", [](WorkerInfo& i) { i.model.name = ""; }, kInvalid, "model.name"},
        HelloCase{"LongModelName", [](WorkerInfo& i) { i.model.name = std::string(257, 'm'); },
                  kInvalid, "at most 256"},
        HelloCase{"ShortDigest", [](WorkerInfo& i) { i.model.digest = "abc"; }, kInvalid,
                  "64 lower-case hexadecimal"},
        HelloCase{"NoArithmetic", [](WorkerInfo& i) { i.model.arithmetic = ""; }, kInvalid,
                  "model.arithmetic"},
        HelloCase{"NoContext", [](WorkerInfo& i) { i.model.context_tokens = 0; }, kInvalid,
                  "model.context_tokens is 0; it must be 1 to 163840"},
        HelloCase{"HugeContext", [](WorkerInfo& i) { i.model.context_tokens = 163'841; }, kInvalid,
                  "model.context_tokens"},
        HelloCase{"HugeVocabulary", [](WorkerInfo& i) { i.model.vocabulary_size = 1u << 21; },
                  kInvalid, "model.vocabulary_size"},
        HelloCase{"EosOutsideOfVocabulary", [](WorkerInfo& i) { i.model.eos_token_ids = {512}; },
                  kInvalid, "model.eos_token_ids has 512"},
        HelloCase{"ManyEos", [](WorkerInfo& i) { i.model.eos_token_ids.assign(65, 1); }, kInvalid,
                  "has 65 ids"},
        HelloCase{"NoBlocks", [](WorkerInfo& i) { i.kv_blocks_total = 0; }, kInvalid,
                  "kv_blocks_total is 0"},
        HelloCase{"NoSequences", [](WorkerInfo& i) { i.sequences_max = 0; }, kInvalid,
                  "sequences_max is 0"},
        HelloCase{"ManySequences", [](WorkerInfo& i) { i.sequences_max = 70'000; }, kInvalid,
                  "sequences_max is 70000; it must be 1 to 65536"},
        HelloCase{"NoStepTokens", [](WorkerInfo& i) { i.step_tokens_max = 0; }, kInvalid,
                  "step_tokens_max"},
        HelloCase{"LongMetricsAddress",
                  [](WorkerInfo& i) { i.metrics_address = std::string(257, 'x'); }, kInvalid,
                  "metrics_address"},
        HelloCase{"LongDirectory",
                  [](WorkerInfo& i) { i.model_directory = std::string(4097, 'x'); }, kInvalid,
                  "model_directory"},
        HelloCase{"UnknownModel", [](WorkerInfo& i) { i.model.name = "other"; }, kPrecondition,
                  "model 'other' is not served by this router, which has 'nano'"},
        HelloCase{"VocabularySmallerThanTheTokenizers",
                  [](WorkerInfo& i) { i.model.vocabulary_size = 499; }, kPrecondition,
                  "ids up to 499, the worker's vocabulary only 499"},
        HelloCase{"OtherDigest", [](WorkerInfo& i) { i.model.digest = std::string(64, 'b'); },
                  kPrecondition, "not the one of worker decode-0.0: digest bbbbbbbbbbbb"},
        HelloCase{"OtherArithmetic", [](WorkerInfo& i) { i.model.arithmetic = "test-2"; },
                  kPrecondition, "arithmetic test-2, there test-1"},
        HelloCase{"OtherContext", [](WorkerInfo& i) { i.model.context_tokens = 100; },
                  kPrecondition, "context, vocabulary, eos tokens or KV block size differ"}),
    [](const auto& info) { return info.param.name; });

TEST_F(RegistryTest, AnotherProtocolIsRefused) {
  MemoryLink link;
  const auto result =
      registry_.Attach(MakeWorkerInfo("decode-0.0", Role::kDecode), kProtocol + 1, link);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("protocol version 2"));
}

TEST_F(RegistryTest, WorkersAreBounded) {
  MemoryLink links[4];
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(
        Attach(MakeWorkerInfo("decode-0." + std::to_string(i), Role::kDecode), links[i]).ok());
  }
  const auto result = Attach(MakeWorkerInfo("decode-0.3", Role::kDecode), links[3]);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(registry_.Attached(Role::kDecode), 3u);
}

// Two processes of one name evicted each other, or the one that was first was refused for ever.
TEST_F(RegistryTest, ANameBelongsToTheProcessThatLives) {
  MemoryLink first_link;
  MemoryLink second_link;
  const WorkerInfo first = MakeWorkerInfo("mixed-0.0", Role::kMixed);
  WorkerInfo second = first;
  second.incarnation = 78;
  const WorkerId first_id = *Attach(first, first_link);
  clock_.Advance(absl::Milliseconds(1000));
  const auto refused = Attach(second, second_link);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("another process is attached as worker mixed-0.0; it holds the name"));
  EXPECT_FALSE(first_link.closed.has_value()) << "the running one is left alone";
  EXPECT_TRUE(registry_.Heard(first_id));

  // A restarted worker gets in as soon as the old stream is gone; and so does the first again.
  registry_.Detach(first_id, "its stream has ended");
  const auto second_id = Attach(second, second_link);
  ASSERT_TRUE(second_id.ok()) << second_id.status();
  EXPECT_EQ(Attach(first, first_link).status().code(), absl::StatusCode::kAlreadyExists);
  registry_.Detach(*second_id, "its stream has ended");
  EXPECT_TRUE(Attach(first, first_link).ok());
}

TEST_F(RegistryTest, ANewIncarnationReplacesASilentOneAndItsRequestsAreLost) {
  MemoryLink old_link;
  MemoryLink new_link;
  WorkerInfo info = MakeWorkerInfo("mixed-0.0", Role::kMixed);
  const WorkerId old_id = *Attach(info, old_link);
  Submit();
  dispatcher_.OnTokens(old_id, {{.key = {{9, 1}, 1}, .sequence = 0, .token = {.id = 5}}});

  clock_.Advance(absl::Milliseconds(1001));
  WorkerInfo next = info;
  next.incarnation = 78;
  const auto new_id = Attach(next, new_link);
  ASSERT_TRUE(new_id.ok());
  ASSERT_TRUE(old_link.closed.has_value());
  EXPECT_EQ(old_link.closed->code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(contract::ReasonOf(sink_.endings.at(1).status), contract::Reason::kWorkerLost);
  EXPECT_FALSE(registry_.Heard(old_id));
  EXPECT_TRUE(registry_.Heard(*new_id));
  ASSERT_EQ(registry_.view()->workers.size(), 1u);
  EXPECT_EQ(registry_.view()->workers[0].info->incarnation, 78u);

  MemoryLink zombie;
  EXPECT_EQ(Attach(info, zombie).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_FALSE(new_link.closed.has_value());
}

TEST_F(RegistryTest, TheSameIncarnationMayDialAgain) {
  MemoryLink first;
  MemoryLink second;
  MemoryLink third;
  const WorkerInfo info = MakeWorkerInfo("mixed-0.0", Role::kMixed);
  ASSERT_TRUE(Attach(info, first).ok());
  ASSERT_TRUE(Attach(info, second).ok());
  EXPECT_TRUE(first.closed.has_value());
  ASSERT_TRUE(Attach(info, third).ok());
  EXPECT_TRUE(second.closed.has_value());
  EXPECT_EQ(registry_.view()->workers.size(), 1u);
}

TEST_F(RegistryTest, AReplacedWorkerMayComeBackWithOtherWeights) {
  MemoryLink first;
  MemoryLink second;
  WorkerInfo info = MakeWorkerInfo("mixed-0.0", Role::kMixed);
  ASSERT_TRUE(Attach(info, first).ok());
  clock_.Advance(absl::Milliseconds(1001));
  info.incarnation = 78;
  info.model.digest = std::string(64, 'c');
  EXPECT_TRUE(Attach(info, second).ok()) << "it differs from nobody who stays";
}

TEST_F(RegistryTest, SilenceMakesSuspectThenLost) {
  MemoryLink link;
  const WorkerId id = *Attach(MakeWorkerInfo("mixed-0.0", Role::kMixed), link);
  Pass(absl::Milliseconds(1000));
  EXPECT_FALSE(registry_.view()->workers[0].suspect);
  Pass(absl::Milliseconds(1));
  EXPECT_TRUE(registry_.view()->workers[0].suspect);
  EXPECT_EQ(registry_.Attached(Role::kMixed), 0u);
  Submit();
  EXPECT_THAT(link.frames, IsEmpty()) << "no new requests for a suspect";

  EXPECT_TRUE(registry_.Heard(id));
  EXPECT_FALSE(registry_.view()->workers[0].suspect);
  EXPECT_EQ(link.frames.size(), 1u);

  Pass(absl::Milliseconds(3001));
  EXPECT_THAT(registry_.view()->workers, IsEmpty());
  ASSERT_TRUE(link.closed.has_value());
  EXPECT_EQ(link.closed->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(contract::ReasonOf(sink_.endings.at(1).status), contract::Reason::kWorkerLost);
  EXPECT_THAT(std::string(sink_.endings.at(1).status.message()), HasSubstr("silent for 3001 ms"));
  EXPECT_FALSE(registry_.Heard(id));
}

// A router that was stopped (SIGSTOP, a laptop's sleep) called its healthy workers lost when it
// went on: it had heard nothing because it had not listened.
TEST_F(RegistryTest, TheRoutersOwnSilenceIsNotTheWorkers) {
  MemoryLink link;
  const WorkerId id = *Attach(MakeWorkerInfo("mixed-0.0", Role::kMixed), link);
  Submit();
  registry_.Tick();
  clock_.Advance(absl::Hours(1));
  registry_.Tick();
  ASSERT_EQ(registry_.view()->workers.size(), 1u);
  EXPECT_FALSE(registry_.view()->workers[0].suspect);
  EXPECT_FALSE(link.closed.has_value());
  EXPECT_THAT(sink_.endings, IsEmpty());
  Pass(absl::Milliseconds(1000));
  EXPECT_FALSE(registry_.view()->workers[0].suspect) << "a fresh lease";
  Pass(absl::Milliseconds(1));
  EXPECT_TRUE(registry_.view()->workers[0].suspect) << "and no more than that";
  EXPECT_TRUE(registry_.Heard(id));
}

TEST_F(RegistryTest, DetachLosesOnce) {
  MemoryLink link;
  const WorkerId id = *Attach(MakeWorkerInfo("mixed-0.0", Role::kMixed), link);
  Submit();
  registry_.Detach(id, "its stream has ended");
  registry_.Detach(id, "its stream has ended");
  EXPECT_EQ(sink_.endings.size(), 1u);
  EXPECT_THAT(registry_.view()->workers, IsEmpty());
}

TEST_F(RegistryTest, ViewsAreSnapshots) {
  MemoryLink link;
  ASSERT_TRUE(Attach(MakeWorkerInfo("mixed-0.0", Role::kMixed), link).ok());
  const auto before = registry_.view();
  registry_.Detach(before->workers[0].id, "gone");
  EXPECT_EQ(before->workers.size(), 1u);
  EXPECT_EQ(before->workers[0].info->name, "mixed-0.0");
}

}  // namespace
}  // namespace baleen::router
