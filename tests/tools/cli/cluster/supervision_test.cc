// Supervision: every decision of the supervisor, on a clock that is turned by hand.
#include "tools/cli/cluster/supervision.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "observability/base/clock.h"

namespace baleen::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr ChildIndex kRouter = 0;
constexpr ChildIndex kPrefill = 1;
constexpr ChildIndex kDecode = 2;

class SupervisionTest : public ::testing::Test {
 protected:
  // The actions that an event brings, as words.
  std::vector<std::string> On(const Event& event) {
    std::vector<std::string> words;
    for (const Action& action : supervision_.Handle(event)) words.push_back(Describe(action));
    return words;
  }

  std::vector<std::string> After(absl::Duration step) {
    clock_.Advance(step);
    return On(TimePassed{});
  }

  static ChildEnded Clean(ChildIndex child) { return {child, "exit code 0", true}; }

  void BringUp() {
    On(Begin{});
    for (const ChildIndex child : {kRouter, kPrefill, kDecode}) On(ChildReady{child});
    ASSERT_THAT(On(ClusterAnswers{}), ElementsAre("announce"));
  }

  // Lets a child die and come back; the delay before its restart, in words.
  std::string DieAndReturn(ChildIndex child, absl::Duration life) {
    clock_.Advance(life);
    const auto words = On(ChildEnded{child, "gone"});
    EXPECT_EQ(words.size(), 1u);
    clock_.Advance(supervision_.NextDeadline() - clock_.Monotonic());
    EXPECT_THAT(On(TimePassed{}), ElementsAre("launch " + specs_[child].name));
    EXPECT_THAT(On(ChildReady{child}), IsEmpty());
    return words.empty() ? "" : words[0];
  }

  const std::vector<ChildSpec> specs_ =
      ChildrenOf({.model_directory = "m", .prefill = {1}, .decode = {1}});
  ManualClock clock_;
  Supervision supervision_{specs_, SupervisionLimits{}, clock_};

 private:
  std::string Describe(const Action& action) const {
    struct Words {
      const std::vector<ChildSpec>& specs;
      std::string operator()(const LaunchChild& a) { return "launch " + specs[a.child].name; }
      std::string operator()(const SignalChild& a) {
        return fmt::format("signal {} {}", specs[a.child].name, a.number);
      }
      std::string operator()(const RestartLater& a) {
        return fmt::format("restart {} in {} ms: {}", specs[a.child].name,
                           absl::ToInt64Milliseconds(a.delay), a.why);
      }
      std::string operator()(const BeginProbe&) { return "probe"; }
      std::string operator()(const Announce&) { return "announce"; }
      std::string operator()(const Finish& a) {
        return a.status.ok() ? "finish" : "finish: " + std::string(a.status.message());
      }
    };
    return std::visit(Words{specs_}, action);
  }
};

TEST_F(SupervisionTest, BringsUpTheRouterThenTheWorkersThenAsks) {
  EXPECT_THAT(On(Begin{}), ElementsAre("launch router"));
  EXPECT_THAT(On(ChildReady{kRouter}), ElementsAre("launch prefill-0.0", "launch decode-0.0"));
  EXPECT_THAT(On(ChildReady{kDecode}), IsEmpty());
  EXPECT_THAT(On(ChildReady{kPrefill}), ElementsAre("probe"));
  EXPECT_THAT(On(ClusterAnswers{}), ElementsAre("announce"));
  EXPECT_EQ(supervision_.NextDeadline(), absl::InfiniteDuration());
}

TEST_F(SupervisionTest, AChildThatCanNotStartEndsEverythingAtOnce) {
  On(Begin{});
  On(ChildReady{kRouter});
  EXPECT_THAT(On(ChildEnded{kPrefill, "no such directory: m"}),
              ElementsAre("signal router 9", "signal decode-0.0 9"));
  EXPECT_THAT(On(ChildEnded{kRouter, "killed"}), IsEmpty());
  EXPECT_THAT(On(ChildEnded{kDecode, "killed"}),
              ElementsAre("finish: prefill-0.0: no such directory: m"));
}

TEST_F(SupervisionTest, ARouterThatCanNotStartIsTheOnlyChild) {
  On(Begin{});
  EXPECT_THAT(On(ChildEnded{kRouter, "port 1 is in use"}),
              ElementsAre("finish: router: port 1 is in use"));
}

TEST_F(SupervisionTest, AChildThatDiesOnceItWasReadyIsRestartedEvenDuringTheStart) {
  On(Begin{});
  On(ChildReady{kRouter});
  On(ChildReady{kPrefill});
  EXPECT_THAT(On(ChildEnded{kPrefill, "killed by signal 9"}),
              ElementsAre("restart prefill-0.0 in 100 ms: killed by signal 9"));
  EXPECT_THAT(On(ChildReady{kDecode}), IsEmpty()) << "prefill-0.0 is not there";
  EXPECT_THAT(After(absl::Milliseconds(100)), ElementsAre("launch prefill-0.0"));
  EXPECT_THAT(On(ChildReady{kPrefill}), ElementsAre("probe"));
}

TEST_F(SupervisionTest, TheWaitForAStartIsBounded) {
  On(Begin{});
  On(ChildReady{kRouter});
  On(ChildReady{kDecode});
  EXPECT_EQ(supervision_.NextDeadline(), absl::Seconds(60));
  EXPECT_THAT(After(absl::Seconds(59)), IsEmpty());
  EXPECT_THAT(After(absl::Seconds(1)),
              ElementsAre("signal router 9", "signal prefill-0.0 9", "signal decode-0.0 9"));
  On(ChildEnded{kRouter, ""});
  On(ChildEnded{kPrefill, ""});
  EXPECT_THAT(
      On(ChildEnded{kDecode, ""}),
      ElementsAre("finish: the cluster is not ready after 60 s: prefill-0.0 has not come up"));
}

TEST_F(SupervisionTest, SaysWhatIsMissingWhenOnlyTheAnswerIs) {
  On(Begin{});
  for (const ChildIndex child : {kRouter, kPrefill, kDecode}) On(ChildReady{child});
  After(absl::Seconds(60));
  On(ChildEnded{kRouter, ""});
  On(ChildEnded{kPrefill, ""});
  EXPECT_THAT(On(ChildEnded{kDecode, ""}),
              ElementsAre(HasSubstr("the router does not say that the model is ready")));
}

TEST_F(SupervisionTest, RestartsSlowDownUpToALimitAndForgetAfterAStableLife) {
  BringUp();
  const absl::Duration short_life = absl::Seconds(1);
  std::vector<std::string> delays;
  for (int death = 0; death < 8; ++death) delays.push_back(DieAndReturn(kDecode, short_life));
  EXPECT_THAT(
      delays,
      ElementsAre("restart decode-0.0 in 100 ms: gone", "restart decode-0.0 in 200 ms: gone",
                  "restart decode-0.0 in 400 ms: gone", "restart decode-0.0 in 800 ms: gone",
                  "restart decode-0.0 in 1600 ms: gone", "restart decode-0.0 in 3200 ms: gone",
                  "restart decode-0.0 in 5000 ms: gone", "restart decode-0.0 in 5000 ms: gone"));
  EXPECT_EQ(DieAndReturn(kDecode, absl::Seconds(10)), "restart decode-0.0 in 100 ms: gone");
  EXPECT_EQ(DieAndReturn(kPrefill, short_life), "restart prefill-0.0 in 100 ms: gone")
      << "each child has its own count";
}

TEST_F(SupervisionTest, ARestartThatFailsIsTriedAgain) {
  BringUp();
  On(ChildEnded{kDecode, "killed"});
  EXPECT_THAT(After(absl::Milliseconds(100)), ElementsAre("launch decode-0.0"));
  EXPECT_THAT(On(ChildEnded{kDecode, "port in use"}),
              ElementsAre("restart decode-0.0 in 200 ms: port in use"));
}

TEST_F(SupervisionTest, ARestartedRouterFindsItsWorkersRunning) {
  BringUp();
  EXPECT_THAT(DieAndReturn(kRouter, absl::Seconds(1)), HasSubstr("restart router in 100 ms"));
}

TEST_F(SupervisionTest, ARestartThatHangsIsKilled) {
  BringUp();
  On(ChildEnded{kDecode, "killed"});
  After(absl::Milliseconds(100));
  EXPECT_THAT(After(absl::Seconds(59)), IsEmpty());
  EXPECT_THAT(After(absl::Seconds(1)), ElementsAre("signal decode-0.0 9"));
  EXPECT_THAT(On(ChildEnded{kDecode, "killed"}),
              ElementsAre("restart decode-0.0 in 200 ms: killed"));
}

// A group is ready when its last rank is. Ranks that waited for one that kept ending were killed
// for it when their own limit had passed, and the group never came back.
TEST(GroupSupervision, ARankThatWaitsForAnotherIsNotKilledForIt) {
  ManualClock clock;
  Supervision supervision(ChildrenOf({.model_directory = "m", .mixed = {1, 2}}), {}, clock);
  supervision.Handle(Begin{});
  const std::size_t launched = supervision.Handle(ChildReady{kRouter}).size();
  EXPECT_EQ(launched, 2u) << "both ranks at once: neither is ready without the other";
  for (const ChildIndex rank : {1, 2}) supervision.Handle(ChildReady{rank});
  supervision.Handle(ClusterAnswers{});

  for (const ChildIndex rank : {1, 2}) supervision.Handle(ChildEnded{rank, "killed"});
  clock.Advance(absl::Milliseconds(100));
  EXPECT_EQ(supervision.Handle(TimePassed{}).size(), 2u) << "both start again";
  clock.Advance(absl::Seconds(59));
  supervision.Handle(ChildEnded{2, "killed once more"});
  clock.Advance(absl::Milliseconds(200));
  const auto restarted = supervision.Handle(TimePassed{});
  ASSERT_EQ(restarted.size(), 1u);
  EXPECT_EQ(std::get<LaunchChild>(restarted[0]).child, 2u);
  clock.Advance(absl::Seconds(59));
  EXPECT_THAT(supervision.Handle(TimePassed{}), IsEmpty()) << "rank 0 waits for rank 1";
  clock.Advance(absl::Seconds(1));
  EXPECT_EQ(supervision.Handle(TimePassed{}).size(), 2u) << "and is bounded all the same";
}

TEST(GroupSupervision, SaysWhichOfManyHaveNotComeUp) {
  ManualClock clock;
  Supervision supervision(ChildrenOf({.model_directory = "m", .mixed = {1, 8}}), {}, clock);
  supervision.Handle(Begin{});
  supervision.Handle(ChildReady{kRouter});
  supervision.Handle(ChildReady{2});
  clock.Advance(absl::Seconds(60));
  supervision.Handle(TimePassed{});
  std::vector<Action> actions;
  for (ChildIndex child = 0; child <= 8; ++child) {
    actions = supervision.Handle(ChildEnded{child, "killed"});
  }
  ASSERT_EQ(actions.size(), 1u);
  EXPECT_EQ(std::get<Finish>(actions[0]).status.message(),
            "the cluster is not ready after 60 s: mixed-0.0, mixed-0.2, mixed-0.3, mixed-0.4 and 3 "
            "more have not come up");
}

TEST_F(SupervisionTest, StopsTheRouterBeforeTheWorkersThatItDrainsOn) {
  BringUp();
  EXPECT_THAT(On(StopRequested{}), ElementsAre("signal router 15"));
  EXPECT_THAT(On(Clean(kRouter)), ElementsAre("signal prefill-0.0 15", "signal decode-0.0 15"));
  EXPECT_THAT(On(Clean(kDecode)), IsEmpty());
  EXPECT_THAT(On(Clean(kPrefill)), ElementsAre("finish"));
}

TEST_F(SupervisionTest, AWorkerThatCrashesWhileItStopsIsNotRestartedButReported) {
  BringUp();
  On(StopRequested{});
  EXPECT_THAT(On(ChildEnded{kDecode, "killed by signal 6"}), IsEmpty());
  EXPECT_THAT(On(Clean(kRouter)), ElementsAre("signal prefill-0.0 15"));
  EXPECT_THAT(On(Clean(kPrefill)),
              ElementsAre("finish: decode-0.0 did not stop in order: killed by signal 6"));
}

TEST_F(SupervisionTest, ASecondStopKills) {
  BringUp();
  On(StopRequested{});
  EXPECT_THAT(On(StopRequested{}),
              ElementsAre("signal router 9", "signal prefill-0.0 9", "signal decode-0.0 9"));
  EXPECT_THAT(On(StopRequested{}), IsEmpty());
}

TEST_F(SupervisionTest, AChildThatDoesNotDrainIsKilledAndOneThatDoesNotDieIsGivenUp) {
  BringUp();
  On(StopRequested{});
  EXPECT_THAT(After(absl::Seconds(11)), IsEmpty());
  EXPECT_THAT(After(absl::Seconds(1)),
              ElementsAre("signal router 9", "signal prefill-0.0 9", "signal decode-0.0 9"));
  On(ChildEnded{kRouter, ""});
  On(ChildEnded{kPrefill, ""});
  EXPECT_THAT(After(absl::Seconds(5)), ElementsAre(HasSubstr("finish: a killed process")));
}

TEST_F(SupervisionTest, StopWhileAChildWaitsForItsRestartForgetsIt) {
  BringUp();
  On(ChildEnded{kRouter, "killed"});
  EXPECT_THAT(On(StopRequested{}), ElementsAre("signal prefill-0.0 15", "signal decode-0.0 15"));
  EXPECT_THAT(After(absl::Seconds(1)), IsEmpty());
  On(Clean(kPrefill));
  EXPECT_THAT(On(Clean(kDecode)), ElementsAre("finish"));
}

TEST_F(SupervisionTest, StopDuringTheStart) {
  On(Begin{});
  EXPECT_THAT(On(StopRequested{}), ElementsAre("signal router 15"));
  EXPECT_THAT(On(ChildReady{kRouter}), IsEmpty()) << "no workers any more";
  EXPECT_THAT(On(Clean(kRouter)), ElementsAre("finish"));
}

}  // namespace
}  // namespace baleen::cli
