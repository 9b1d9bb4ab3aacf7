// ClusterSpec: which processes a cluster has, their command lines, and the lines they announce
// themselves with.
#include "tools/cli/cluster/spec/cluster_spec.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <string>
#include <vector>

namespace baleen::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> NamesOf(const ClusterSpec& spec) {
  std::vector<std::string> names;
  for (const ChildSpec& child : ChildrenOf(spec)) names.push_back(child.name);
  return names;
}

TEST(ClusterSpec, NamesItsProcessesAsTheyNameThemselves) {
  EXPECT_THAT(NamesOf({.model_directory = "m", .prefill = {2}, .decode = {1}, .mixed = {1}}),
              ElementsAre("router", "prefill-0.0", "prefill-1.0", "decode-0.0", "mixed-0.0"));
}

TEST(ClusterSpec, GroupsHaveRanksThatMeetAtTheirLeader) {
  ClusterSpec spec{.model_directory = "m", .prefill = {1, 4}, .decode = {2, 2}, .mixed = {1}};
  spec.group.meeting_point = "unix-abstract:here";
  EXPECT_THAT(NamesOf(spec),
              ElementsAre("router", "prefill-0.0", "prefill-0.1", "prefill-0.2", "prefill-0.3",
                          "decode-0.0", "decode-0.1", "decode-1.0", "decode-1.1", "mixed-0.0"));
  const auto children = ChildrenOf(spec);
  EXPECT_EQ(GroupNameOf(children[4]), "prefill-0");
  EXPECT_EQ(children[4].ranks, 4u);
  EXPECT_EQ(children[4].leader, "unix-abstract:here-prefill-0");
  EXPECT_EQ(children[5].leader, "unix-abstract:here-decode-0");
  EXPECT_EQ(children[7].leader, "unix-abstract:here-decode-1");
  EXPECT_EQ(children[8].leader, "unix-abstract:here-decode-1");
  EXPECT_EQ(children[9].leader, "") << "a group of one rank meets nobody";
}

TEST(ClusterSpec, RefusesWhatCanNotAnswer) {
  struct Case {
    ClusterSpec spec;
    const char* message;  // null = valid
  };
  const std::vector<Case> cases = {
      {{.model_directory = "m", .prefill = {1}, .decode = {1}}, nullptr},
      {{.model_directory = "m", .mixed = {1}}, nullptr},
      {{.model_directory = "m", .prefill = {32}, .decode = {31}, .mixed = {1}}, nullptr},
      {{.model_directory = "", .mixed = {1}}, "--model"},
      {{.model_directory = "m"}, "at least one prefill and one decode"},
      {{.model_directory = "m", .prefill = {3}}, "at least one prefill and one decode"},
      {{.model_directory = "m", .decode = {3}}, "at least one prefill and one decode"},
      {{.model_directory = "m", .prefill = {32}, .decode = {32}, .mixed = {1}}, "at most 64"},
      {{.model_directory = "m", .prefill = {0xffffffff}, .decode = {2}}, "4294967297 workers"},
      {{.model_directory = "m", .prefill = {8, 4}, .decode = {4, 8}}, nullptr},
      {{.model_directory = "m", .prefill = {8, 4}, .decode = {4, 8}, .mixed = {1}}, "65 workers"},
      {{.model_directory = "m", .prefill = {2, 4}}, "--prefill 2x4 --decode 0"},
      {{.model_directory = "m", .mixed = {1, 2}, .group = {.redundant_experts = 2}}, nullptr},
      {{.model_directory = "m", .mixed = {2}, .group = {.redundant_experts = 2}},
       "--redundant-experts and --placement are for groups of several ranks"},
      {{.model_directory = "m", .mixed = {2}, .group = {.placement_file = "p"}},
       "for groups of several ranks"},
      {{.model_directory = "m",
        .prefill = {1},
        .decode = {2, 4},
        .mixed = {1, 4},
        .group = {.placement_file = "p"}},
       nullptr},
      {{.model_directory = "m",
        .prefill = {1, 2},
        .decode = {1, 4},
        .group = {.placement_file = "p"}},
       "one width, not of 2 and of 4 ranks"},
  };
  for (const Case& c : cases) {
    const absl::Status status = Validate(c.spec);
    EXPECT_EQ(status.ok(), c.message == nullptr) << status.ToString();
    if (c.message != nullptr) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
    }
  }
}

TEST(ClusterSpec, FirstLifeTakesAnyPort) {
  const ClusterSpec spec{.model_directory = "m", .mixed = {1}, .listen = "127.0.0.1:9000"};
  const auto children = ChildrenOf(spec);
  EXPECT_EQ(
      fmt::format("{}", fmt::join(ArgumentsOf(spec, children[0], nullptr, nullptr), " ")),
      "--model m --listen 127.0.0.1:9000 --http-listen 127.0.0.1:0 --worker-listen 127.0.0.1:0 "
      "--metrics-listen 127.0.0.1:0 --log-format text --log-level info --drain-seconds 10 "
      "--die-with-parent");
}

TEST(ClusterSpec, NextLifeTakesThePortsOfTheFirst) {
  const ClusterSpec spec{.model_directory = "m", .prefill = {1}, .decode = {1}, .kv_blocks = 7};
  const auto children = ChildrenOf(spec);
  const ReadyLine router = {
      {"grpc", "h:1"}, {"http", "h:5"}, {"workers", "h:2"}, {"metrics", "h:3"}};
  const ReadyLine worker = {{"worker", "decode-0.0"}, {"metrics", "h:4"}};
  EXPECT_EQ(fmt::format("{}", fmt::join(ArgumentsOf(spec, children[0], nullptr, &router), " ")),
            "--model m --listen h:1 --http-listen h:5 --worker-listen h:2 --metrics-listen h:3 "
            "--log-format text --log-level info --drain-seconds 10 --die-with-parent");
  EXPECT_EQ(fmt::format("{}", fmt::join(ArgumentsOf(spec, children[2], &router, &worker), " ")),
            "--model m --role decode --group 0 --rank 0 --router h:2 --metrics-listen h:4 "
            "--kv-blocks 7 --log-format text --log-level info --drain-seconds 10 "
            "--die-with-parent");
}

std::string JoinedArguments(const ClusterSpec& spec, const ChildSpec& child) {
  const ReadyLine router = {
      {"grpc", "h:1"}, {"http", "h:5"}, {"workers", "h:2"}, {"metrics", "h:3"}};
  return fmt::format("{}", fmt::join(ArgumentsOf(spec, child, &router, nullptr), " "));
}

TEST(ClusterSpec, ARankIsToldItsGroupAndWhereToMeet) {
  const ClusterSpec spec{.model_directory = "m",
                         .mixed = {1, 2},
                         .group = {.meeting_point = "unix-abstract:b",
                                   .redundant_experts = 2,
                                   .placement_file = "p.json",
                                   .dispatch = "fp8",
                                   .micro_batch_rows = 7,
                                   .rebalance_seconds = 0,
                                   .join_seconds = 90,
                                   .step_wait_ms = 250}};
  const auto children = ChildrenOf(spec);
  const std::string end =
      "--micro-batch-rows 7 --rebalance-seconds 0 --join-seconds 90 --step-wait-ms 250 "
      "--log-format text --log-level info --drain-seconds 10 --die-with-parent";
  EXPECT_EQ(JoinedArguments(spec, children[1]),
            "--model m --role mixed --group 0 --rank 0 --router h:2 --metrics-listen 127.0.0.1:0 "
            "--dispatch fp8 --ranks 2 --group-leader unix-abstract:b-mixed-0 --redundant-experts 2 "
            "--placement p.json " +
                end);
  EXPECT_EQ(
      JoinedArguments(spec, children[2]),
      "--model m --role mixed --group 0 --rank 1 --router h:2 --metrics-listen 127.0.0.1:0 "
      "--dispatch fp8 --ranks 2 --group-leader unix-abstract:b-mixed-0 --redundant-experts 2 " +
          end)
      << "the placement is the leader's";
}

TEST(ClusterSpec, ARankAloneIsToldOnlyWhatIsPartOfTheArithmetic) {
  const ClusterSpec spec{
      .model_directory = "m", .mixed = {1}, .group = {.dispatch = "fp8", .step_wait_ms = 250}};
  EXPECT_EQ(JoinedArguments(spec, ChildrenOf(spec)[1]),
            "--model m --role mixed --group 0 --rank 0 --router h:2 --metrics-listen 127.0.0.1:0 "
            "--dispatch fp8 --log-format text --log-level info --drain-seconds 10 "
            "--die-with-parent");
}

// The data plane of workers that were asked to use the loopback interface listened on all others.
TEST(ClusterSpec, WorkersKeepTheirDataPlaneOnThisMachine) {
  const ChildSpec worker{.kind = ChildKind::kWorker};
  for (const char* name : {"UCX_NET_DEVICES", "UCX_TLS"}) ::unsetenv(name);
  EXPECT_THAT(EnvironmentOf(worker), ElementsAre("UCX_NET_DEVICES=lo"));
  EXPECT_THAT(EnvironmentOf({.kind = ChildKind::kRouter}), ElementsAre());
  for (const char* name : {"UCX_NET_DEVICES", "UCX_TLS"}) {
    ::setenv(name, "all", 1);
    EXPECT_THAT(EnvironmentOf(worker), ElementsAre()) << name << " is the user's choice";
    ::unsetenv(name);
  }
}

TEST(ReadyLine, TakesTheKeysOfItsKindAndToleratesMore) {
  const auto router = ParseReadyLine(
      ChildKind::kRouter,
      R"({"grpc": "a:1", "workers": "a:2", "metrics": "a:3", "http": "a:4", "more": 1})");
  ASSERT_TRUE(router.ok()) << router.status();
  EXPECT_EQ(router->at("workers"), "a:2");
  const auto worker = ParseReadyLine(ChildKind::kWorker, R"({"worker":"w","metrics":"a:3"})");
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_EQ(worker->at("worker"), "w");
}

TEST(ReadyLine, RefusesEverythingElse) {
  for (const char* line : {"", "hello", "[]", "7", "{}", R"({"worker": 7, "metrics": "a:1"})",
                           R"({"worker": "w"})", R"({"worker": "w", "metrics": "a:1")"}) {
    const auto ready = ParseReadyLine(ChildKind::kWorker, line);
    EXPECT_EQ(ready.status().code(), absl::StatusCode::kInvalidArgument) << line;
  }
}

}  // namespace
}  // namespace baleen::cli
