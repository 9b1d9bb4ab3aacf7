// Routing decisions, as tables: which workers a view and a query lead to, and what the refusals
// say.
#include "router/policy/route.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace baleen::router {
namespace {

using contract::Reason;
using ::testing::HasSubstr;

struct WorkerSpec {
  std::string name;
  Role role = Role::kMixed;
  LoadReport load = {};
  Work since_report = {};
  Work own = {};
  bool suspect = false;
  std::uint32_t kv_blocks_total = 100;
  std::uint32_t sequences_max = 8;
  std::string model = "nano";
};

// Ids count up from 1 in the order of `specs`.
ClusterView MakeView(const std::vector<WorkerSpec>& specs) {
  ClusterView view;
  for (const WorkerSpec& spec : specs) {
    WorkerInfo info{.name = spec.name, .role = spec.role};
    info.model.name = spec.model;
    info.kv_blocks_total = spec.kv_blocks_total;
    info.sequences_max = spec.sequences_max;
    info.step_tokens_max = 512;
    view.workers.push_back({.id = {view.workers.size() + 1},
                            .info = std::make_shared<const WorkerInfo>(info),
                            .load = spec.load,
                            .since_report = spec.since_report,
                            .own = spec.own,
                            .suspect = spec.suspect});
  }
  return view;
}

RouteQuery Query(std::uint32_t prompt_tokens = 100, std::uint32_t tokens_max = 50) {
  return {.model = "nano", .prompt_tokens = prompt_tokens, .tokens_max = tokens_max};
}

struct PickCase {
  std::string name;
  std::vector<WorkerSpec> workers;
  std::uint64_t prefill;
  std::uint64_t decode;
};

class Picks : public ::testing::TestWithParam<PickCase> {};

TEST_P(Picks, TheExpectedWorkers) {
  const RouteResult result = PlanRoute(MakeView(GetParam().workers), Query());
  const auto* plan = std::get_if<RoutePlan>(&result);
  ASSERT_NE(plan, nullptr) << std::get<RouteRefusal>(result).message;
  EXPECT_EQ(plan->prefill.value, GetParam().prefill);
  EXPECT_EQ(plan->decode.value, GetParam().decode);
  EXPECT_EQ(plan->whole(), GetParam().prefill == GetParam().decode);
}

INSTANTIATE_TEST_SUITE_P(
    Table, Picks,
    ::testing::Values(
        PickCase{"OnePair", {{"p", Role::kPrefill}, {"d", Role::kDecode}}, 1, 2},
        PickCase{"OneMixed", {{"m", Role::kMixed}}, 1, 1},
        PickCase{"TieGoesToTheLowerName",
                 {{"p-1", Role::kPrefill},
                  {"d-1", Role::kDecode},
                  {"p-0", Role::kPrefill},
                  {"d-0", Role::kDecode}},
                 3,
                 4},
        PickCase{"FewestPromptTokensWait",
                 {{"p-0", Role::kPrefill, {.prompt_tokens_pending = 900}},
                  {"p-1", Role::kPrefill, {.prompt_tokens_pending = 300}},
                  {"d", Role::kDecode}},
                 2,
                 3},
        PickCase{"PromptsSentSinceTheReportCount",
                 {{"p-0", Role::kPrefill, {}, {.prompt_tokens = 400}},
                  {"p-1", Role::kPrefill, {.prompt_tokens_pending = 300}},
                  {"d", Role::kDecode}},
                 2,
                 3},
        PickCase{"FewestContextTokensHeld",
                 {{"p", Role::kPrefill},
                  {"d-0", Role::kDecode, {.context_tokens_held = 900}},
                  {"d-1", Role::kDecode, {.context_tokens_held = 300}}},
                 1,
                 3},
        PickCase{"OwnReservationsCountBeforeTheyAreReported",
                 {{"p", Role::kPrefill},
                  {"d-0", Role::kDecode, {}, {}, {.context_tokens = 400}},
                  {"d-1", Role::kDecode, {.context_tokens_held = 300}}},
                 1,
                 3},
        PickCase{"AShareOfALargerMemoryIsSmaller",
                 {{"p", Role::kPrefill},
                  {"d-0", Role::kDecode, {.context_tokens_held = 300}},
                  {.name = "d-1",
                   .role = Role::kDecode,
                   .load = {.context_tokens_held = 400},
                   .kv_blocks_total = 1000}},
                 1,
                 3},
        PickCase{"DrainingTakesNothing",
                 {{"p-0", Role::kPrefill, {.draining = true}},
                  {"p-1", Role::kPrefill, {.prompt_tokens_pending = 5000}},
                  {"d", Role::kDecode}},
                 2,
                 3},
        PickCase{"SuspectTakesNothing",
                 {{"p", Role::kPrefill},
                  {.name = "d-0", .role = Role::kDecode, .suspect = true},
                  {"d-1", Role::kDecode, {.context_tokens_held = 3000}}},
                 1,
                 3},
        PickCase{"FullSequencesTakeNothing",
                 {{"p", Role::kPrefill},
                  {"d-0", Role::kDecode, {.sequences_running = 5, .sequences_waiting = 3}},
                  {"d-1", Role::kDecode, {.context_tokens_held = 3000}}},
                 1,
                 3},
        PickCase{"FullKvTakesNothing",
                 {{"p", Role::kPrefill},
                  {"d-0", Role::kDecode, {.kv_blocks_used = 98}},
                  {"d-1", Role::kDecode, {.context_tokens_held = 3000}}},
                 1,
                 3},
        PickCase{"APrefillRankQueuesBeyondItsFreeBlocks",
                 {{"p", Role::kPrefill, {.kv_blocks_used = 100}}, {"d", Role::kDecode}},
                 1,
                 2},
        PickCase{"OtherModelsAreOutOfSight",
                 {{.name = "d-0", .role = Role::kDecode, .model = "other"},
                  {"p", Role::kPrefill},
                  {"d-1", Role::kDecode, {.context_tokens_held = 3000}}},
                 2,
                 3},
        PickCase{"IdlePairBeforeIdleMixed",
                 {{"a-mixed", Role::kMixed}, {"p", Role::kPrefill}, {"d", Role::kDecode}},
                 2,
                 3},
        PickCase{"IdleMixedBeforeBusyPair",
                 {{"m", Role::kMixed},
                  {"p", Role::kPrefill, {.prompt_tokens_pending = 900}},
                  {"d", Role::kDecode}},
                 1,
                 1},
        PickCase{"MixedWhenThePairHasNoRoom",
                 {{"m", Role::kMixed, {.context_tokens_held = 4000}},
                  {"p", Role::kPrefill},
                  {"d", Role::kDecode, {.kv_blocks_used = 100}}},
                 1,
                 1}),
    [](const auto& info) { return info.param.name; });

struct RefusalCase {
  std::string name;
  std::vector<WorkerSpec> workers;
  Reason reason;
  std::string message;
};

class Refusals : public ::testing::TestWithParam<RefusalCase> {};

TEST_P(Refusals, NameTheThingAndTheLimit) {
  const RouteResult result = PlanRoute(MakeView(GetParam().workers), Query());
  const auto* refusal = std::get_if<RouteRefusal>(&result);
  ASSERT_NE(refusal, nullptr);
  EXPECT_EQ(refusal->reason, GetParam().reason);
  EXPECT_THAT(refusal->message, HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Table, Refusals,
    ::testing::Values(
        RefusalCase{"Nobody", {}, Reason::kNoWorker, "no prefill worker is attached"},
        RefusalCase{"NoDecode",
                    {{"p", Role::kPrefill}},
                    Reason::kNoWorker,
                    "no decode worker is attached for model 'nano'"},
        RefusalCase{"NoPrefill",
                    {{"d", Role::kDecode}},
                    Reason::kNoWorker,
                    "no prefill worker is attached"},
        RefusalCase{"NoDecodeAndPrefillIsFull",
                    {{"p", Role::kPrefill, {.sequences_running = 8}}},
                    Reason::kNoWorker,
                    "no decode worker"},
        RefusalCase{"OnlyADrainingDecode",
                    {{"p", Role::kPrefill}, {"d", Role::kDecode, {.draining = true}}},
                    Reason::kNoWorker,
                    "all 1 decode workers of model 'nano' are draining"},
        RefusalCase{"SuspectMayComeBack",
                    {{"p", Role::kPrefill}, {.name = "d", .role = Role::kDecode, .suspect = true}},
                    Reason::kQueueFull,
                    "all 1 decode workers"},
        RefusalCase{
            "NeverFits",
            {{"p", Role::kPrefill}, {.name = "d", .role = Role::kDecode, .kv_blocks_total = 2}},
            Reason::kPromptTooLong,
            "prompt of 100 and reply of at most 50 tokens need 3 KV blocks on one decode "
            "worker, the largest has 2"},
        RefusalCase{"PrefillIsFull",
                    {{"p", Role::kPrefill, {.sequences_waiting = 8}}, {"d", Role::kDecode}},
                    Reason::kQueueFull,
                    "all 1 prefill workers"},
        RefusalCase{"MixedIsFullAndThereIsNoPair",
                    {{"m", Role::kMixed, {.kv_blocks_used = 98}}, {"p", Role::kPrefill}},
                    Reason::kQueueFull,
                    "all 1 mixed workers"},
        RefusalCase{"MixedIsTooSmallAndThereIsNoPair",
                    {{.name = "m", .role = Role::kMixed, .kv_blocks_total = 1}},
                    Reason::kPromptTooLong,
                    "on one mixed worker, the largest has 1"}),
    [](const auto& info) { return info.param.name; });

TEST(Route, AvoidedWorkersTakeNothing) {
  const ClusterView view = MakeView({{"p", Role::kPrefill},
                                     {"d-0", Role::kDecode},
                                     {"d-1", Role::kDecode, {.context_tokens_held = 999}}});
  const std::vector<WorkerId> avoid = {{2}};
  RouteQuery query = Query();
  query.avoid = avoid;
  EXPECT_EQ(std::get<RoutePlan>(PlanRoute(view, query)), (RoutePlan{{1}, {3}}));
  const std::vector<WorkerId> both = {{2}, {3}};
  query.avoid = both;
  EXPECT_EQ(std::get<RouteRefusal>(PlanRoute(view, query)).reason, Reason::kNoWorker);
}

TEST(Route, WeightsDecideBetweenPairAndMixed) {
  const ClusterView view = MakeView({{"p", Role::kPrefill, {.prompt_tokens_pending = 512}},
                                     {"d", Role::kDecode},
                                     {"m", Role::kMixed, {.context_tokens_held = 3200}}});
  const auto pick = [&view](RouteWeights weights) {
    return std::get<RoutePlan>(PlanRoute(view, Query(), weights));
  };
  EXPECT_EQ(pick({.prefill = 0.9, .decode = 0.1}).prefill.value, 3u);
  EXPECT_EQ(pick({.prefill = 0.1, .decode = 0.9}).prefill.value, 1u);
}

TEST(Route, TheLastTokenOfAReplyNeedsNoMemory) {
  EXPECT_EQ(DecodeWork(Query(64, 1)).kv_blocks, 1u);
  EXPECT_EQ(DecodeWork(Query(64, 2)).kv_blocks, 2u);
  EXPECT_EQ(PrefillWork(Query(65, 9)).kv_blocks, 2u);
  EXPECT_EQ(WholeWork(Query(64, 2)).prompt_tokens, 64u);
}

TEST(Route, WorkIsGivenBackAsItWasTaken) {
  Work own;
  own += WholeWork(Query(100, 50));
  own += DecodeWork(Query(10, 5));
  own -= WholeWork(Query(100, 50));
  own -= DecodeWork(Query(10, 5));
  EXPECT_EQ(own, Work{});
}

}  // namespace
}  // namespace baleen::router
