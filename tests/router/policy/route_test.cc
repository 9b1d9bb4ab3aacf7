// Routing decisions, as tables: what each score, the filter and the pick make of a rank, which
// workers a view and a query lead to, and what the refusals and explanations say.
#include "router/policy/route.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "router/policy/score/first_token.h"
#include "router/policy/score/head_room.h"
#include "router/policy/score/load.h"
#include "router/policy/score/prefix.h"

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
                            .slot = static_cast<std::uint32_t>(view.workers.size()),
                            .facts = FactsOf(info),
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

// --- The scores ---

TEST(Score, APrefixCountsInWholeBlocksAndNeverAllOfAPrompt) {
  const ClusterView view = MakeView({{"p-0", Role::kPrefill}, {"p-1", Role::kPrefill}});
  const std::vector<std::uint16_t> blocks = {3};
  EXPECT_EQ(CachedTokens(view.workers[0], blocks, 1000), 192u);
  EXPECT_EQ(CachedTokens(view.workers[0], blocks, 193), 192u);
  EXPECT_EQ(CachedTokens(view.workers[0], blocks, 192), 128u) << "its last token is computed";
  EXPECT_EQ(CachedTokens(view.workers[0], blocks, 1), 0u);
  EXPECT_EQ(CachedTokens(view.workers[1], blocks, 1000), 0u) << "nothing is known of it";
}

TEST(Score, TheFirstTokenComesAfterWhatWaitsAtTheRanksOwnRate) {
  ClusterView view = MakeView({{"p", Role::kPrefill, {.prompt_tokens_pending = 900}}});
  WorkerView& worker = view.workers[0];
  EXPECT_DOUBLE_EQ(FirstTokenSeconds(worker, 100, 500.0), 2.0);
  worker.load.prompt_tokens_per_second = 4000;
  EXPECT_DOUBLE_EQ(FirstTokenSeconds(worker, 100, 500.0), 0.25);
  EXPECT_DOUBLE_EQ(FirstTokenScore(0.0, 0.2), 1.0);
  EXPECT_DOUBLE_EQ(FirstTokenScore(0.2, 0.2), 0.5);
  EXPECT_DOUBLE_EQ(FirstTokenScore(0.6, 0.2), 0.25);
}

TEST(Score, LoadAndHeadRoomAreSharesOfTheRanksMemory) {
  const ClusterView view =
      MakeView({{"d-0", Role::kDecode, {.context_tokens_held = 1600, .kv_blocks_used = 40}},
                {"d-1", Role::kDecode, {.context_tokens_held = 9999, .kv_blocks_used = 100}}});
  EXPECT_DOUBLE_EQ(LoadScore(view.workers[0]), 0.75);
  EXPECT_DOUBLE_EQ(LoadScore(view.workers[1]), 0.0);
  EXPECT_DOUBLE_EQ(HeadRoomScore(view.workers[0], {.kv_blocks = 10}), 0.5);
  EXPECT_DOUBLE_EQ(HeadRoomScore(view.workers[1], {.kv_blocks = 10}), 0.0);
}

// --- The pick ---

struct RankSpec {
  double first_token_s = 0.0;
  std::uint32_t cached_tokens = 0;  // of 1000
  double score = 1.0;
};

struct PickRankCase {
  std::string name;
  std::vector<RankSpec> ranks;
  std::vector<std::size_t> winners;  // any of these, each for some draw
  Why why;
};

class PickRanks : public ::testing::TestWithParam<PickRankCase> {};

TEST_P(PickRanks, TheExpectedOnesWin) {
  std::vector<Candidate> candidates;
  for (const RankSpec& rank : GetParam().ranks) {
    candidates.push_back({.cached_tokens = rank.cached_tokens,
                          .prefix_share = rank.cached_tokens / 1000.0,
                          .first_token_s = rank.first_token_s,
                          .step_s = 0.1,
                          .score = rank.score});
  }
  std::map<std::size_t, int> won;
  for (std::uint64_t i = 0; i < 256; ++i) {
    const Pick pick = PickRank(candidates, {}, i * 0x9e3779b97f4a7c15ULL);
    EXPECT_EQ(pick.why, GetParam().why) << ToString(pick.why);
    ++won[static_cast<std::size_t>(pick.winner - candidates.data())];
  }
  std::vector<std::size_t> winners;
  for (const auto& [index, times] : won) winners.push_back(index);
  EXPECT_EQ(winners, GetParam().winners);
}

INSTANTIATE_TEST_SUITE_P(
    Table, PickRanks,
    ::testing::Values(
        PickRankCase{"One", {{1.0}}, {0}, Why::kOnly},
        PickRankCase{"TheBest", {{.score = 0.5}, {.score = 0.9}, {.score = 0.8}}, {1}, Why::kBest},
        PickRankCase{"EqualsShareTheWork", {{}, {}, {}}, {0, 1, 2}, Why::kBestOfTwo},
        PickRankCase{"OfTwoNearEqualsTheBetter",
                     {{.score = 0.90}, {.score = 0.89}, {.score = 0.5}},
                     {0},
                     Why::kBestOfTwo},
        PickRankCase{"OfThreeNearEqualsNeverTheWorst",
                     {{.score = 0.90}, {.score = 0.89}, {.score = 0.88}},
                     {0, 1},
                     Why::kBestOfTwo},
        PickRankCase{"StickyThoughLater", {{1.0, 0, 0.5}, {1.9, 1000, 0.3}}, {1}, Why::kPrefix},
        PickRankCase{"SaturatedWhenFarTooLate",
                     {{1.0, 0, 0.5}, {2.2, 1000, 0.3}},
                     {0},
                     Why::kPrefixSaturated},
        PickRankCase{"HalfAPrefixMayBeHalfAsLate",
                     {{1.0, 0, 0.5}, {1.9, 500, 0.3}},
                     {0},
                     Why::kPrefixSaturated},
        PickRankCase{"AStepIsNoDelay", {{0.01, 0, 0.9}, {0.1, 1000, 0.5}}, {1}, Why::kPrefix},
        PickRankCase{"TheLongestPrefixOfSeveral",
                     {{1.0, 0, 0.5}, {1.0, 640, 0.5}, {1.0, 960, 0.5}},
                     {2},
                     Why::kPrefix},
        PickRankCase{"EqualPrefixesShareTheWork",
                     {{1.0, 960, 0.5}, {1.0, 0, 0.5}, {1.0, 960, 0.5}},
                     {0, 2},
                     Why::kPrefix}),
    [](const auto& info) { return info.param.name; });

// --- Prefixes in a whole plan ---

TEST(Route, AHotPrefixStaysOnItsRankUntilThatIsSaturated) {
  // 1000 tokens at 1000/s, 900 of them cached on p-0: it answers in 0.1 s, the idle one in 1 s.
  ClusterView view = MakeView({{"p-0", Role::kPrefill, {.prompt_tokens_per_second = 1000}},
                               {"p-1", Role::kPrefill, {.prompt_tokens_per_second = 1000}},
                               {"d", Role::kDecode}});
  const std::vector<std::uint16_t> cached = {14};
  RouteQuery query = Query(1000);
  query.cached_blocks = cached;
  const auto plan = [&] { return std::get<RoutePlan>(PlanRoute(view, query)); };
  EXPECT_EQ(plan(), (RoutePlan{{1}, {3}, 896}));
  view.workers[0].load.prompt_tokens_pending = 2000;
  EXPECT_EQ(plan().prefill.value, 1u) << "2.1 s, up to 2.4 s it is kept";
  view.workers[0].load.prompt_tokens_pending = 2500;
  EXPECT_EQ(plan(), (RoutePlan{{2}, {3}, 0})) << "2.6 s";
}

TEST(Route, AFasterRankMayHaveMoreWaiting) {
  const ClusterView view = MakeView(
      {{"p-0", Role::kPrefill, {.prompt_tokens_pending = 900, .prompt_tokens_per_second = 4000}},
       {"p-1", Role::kPrefill, {.prompt_tokens_pending = 500, .prompt_tokens_per_second = 1000}},
       {"d", Role::kDecode}});
  EXPECT_EQ(std::get<RoutePlan>(PlanRoute(view, Query())).prefill.value, 1u);
}

TEST(Route, SeveralRoutersDoNotHerd) {
  std::vector<WorkerSpec> specs = {{"d", Role::kDecode}};
  for (int i = 0; i < 8; ++i) specs.push_back({"p-" + std::to_string(i), Role::kPrefill});
  const ClusterView view = MakeView(specs);
  std::map<std::uint64_t, int> chosen;
  for (std::uint64_t router = 0; router < 4000; ++router) {
    RouteQuery query = Query();
    query.draw = (router + 1) * 0x9e3779b97f4a7c15ULL;
    ++chosen[std::get<RoutePlan>(PlanRoute(view, query)).prefill.value];
  }
  ASSERT_EQ(chosen.size(), 8u);
  for (const auto& [rank, times] : chosen) {
    EXPECT_GT(times, 400) << rank;
    EXPECT_LT(times, 600) << rank;
  }
}

// --- The explanation ---

TEST(Route, AnExplanationNamesRanksVerdictsScoresAndTheReason) {
  const ClusterView view = MakeView(
      {{"p-0", Role::kPrefill, {.prompt_tokens_per_second = 1000}},
       {"p-1", Role::kPrefill, {.draining = true}},
       {"p-2", Role::kPrefill, {.prompt_tokens_pending = 900, .prompt_tokens_per_second = 1000}},
       {"d-0", Role::kDecode, {.kv_blocks_used = 99}},
       {"d-1", Role::kDecode, {.kv_blocks_used = 47}}});
  const std::vector<std::uint16_t> cached = {1};
  RouteQuery query = Query();
  query.cached_blocks = cached;
  RouteExplanation explanation;
  PlanRoute(view, query, {}, &explanation);
  EXPECT_EQ(ToText(explanation),
            "plan=split; prefill: considered=3 fits=2 draining=1 why=prefix near_equals=1 "
            "[p-0 score=0.934 first_token_ms=36.0 cached=64] "
            "[p-2 score=0.339 first_token_ms=1000.0 cached=0]; "
            "decode: considered=2 fits=1 no_memory=1 why=only near_equals=1 "
            "[d-1 score=0.750]");
}

TEST(Route, AnExplanationIsBoundedHoweverManyRanksThereAre) {
  std::vector<WorkerSpec> specs;
  for (int i = 0; i < 300; ++i) {
    const std::string tail = std::to_string(i) + std::string(120, 'x');
    specs.push_back({"p-" + tail, Role::kPrefill});
    specs.push_back({"d-" + tail, Role::kDecode});
  }
  RouteExplanation explanation;
  PlanRoute(MakeView(specs), Query(), {}, &explanation);
  ASSERT_EQ(explanation.stages.size(), 2u);
  EXPECT_EQ(explanation.stages[0].ranks.size(), kExplainedRanksMax);
  const std::string text = ToText(explanation);
  EXPECT_LE(text.size(), kExplanationBytesMax);
  EXPECT_THAT(text, ::testing::EndsWith("] ..."));
  EXPECT_THAT(text, HasSubstr("considered=300"));
}

TEST(Route, ARankThatCouldNotTakeARequestBeforeIsWorthAnotherLook) {
  ClusterView view = MakeView({{"d", Role::kDecode, {.kv_blocks_used = 98}}});
  EXPECT_FALSE(CouldTake(view.workers[0], Query()));
  view.workers[0].load.kv_blocks_used = 97;
  EXPECT_TRUE(CouldTake(view.workers[0], Query()));
  RouteQuery other = Query();
  other.model = "other";
  EXPECT_FALSE(CouldTake(view.workers[0], other));
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
