// What baleen-worker can be told, and what it makes of the memory there is.
#include "worker/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "worker/kv_budget.h"

namespace baleen::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<WorkerOptions> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "baleen-worker");
  return ParseOptions(static_cast<int>(arguments.size()), arguments.data());
}

TEST(WorkerOptions, TwoFlagsAreEnough) {
  const auto parsed = Parse({"--model", "models/nano", "--router", "a:1"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const WorkerOptions& options = *parsed;
  EXPECT_TRUE(parsed->process.help.empty());
  EXPECT_EQ(options.role, Role::kMixed);
  EXPECT_EQ(options.WorkerName(), "mixed-0.0");
  EXPECT_EQ(options.process.metrics_listen, "127.0.0.1:0");
  EXPECT_EQ(options.kv_blocks, 0u);
  EXPECT_TRUE(options.prefix_cache);
  EXPECT_EQ(options.process.drain, absl::Seconds(10));
  EXPECT_FALSE(options.process.die_with_parent);
}

TEST(WorkerOptions, EveryFlagArrives) {
  const auto parsed = Parse({"--model",
                             "m",
                             "--role",
                             "decode",
                             "--group",
                             "3",
                             "--rank",
                             "4",
                             "--router",
                             "a:1,b:2",
                             "--metrics-listen",
                             "0.0.0.0:9",
                             "--kv-blocks",
                             "5",
                             "--sequences-max",
                             "6",
                             "--step-tokens-max",
                             "7",
                             "--drain-seconds",
                             "8",
                             "--log-format",
                             "json",
                             "--log-level",
                             "debug",
                             "--die-with-parent",
                             "--ranks",
                             "8",
                             "--group-leader",
                             "unix-abstract:x",
                             "--redundant-experts",
                             "16",
                             "--placement",
                             "p.json",
                             "--rebalance-seconds",
                             "30",
                             "--dispatch",
                             "fp8",
                             "--micro-batch-rows",
                             "256",
                             "--join-seconds",
                             "20",
                             "--nodes",
                             "2",
                             "--step-wait-ms",
                             "700"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const WorkerOptions& options = *parsed;
  EXPECT_EQ(options.model_directory, "m");
  EXPECT_EQ(options.WorkerName(), "decode-3.4");
  EXPECT_THAT(options.routers, ElementsAre("a:1", "b:2"));
  EXPECT_EQ(options.process.metrics_listen, "0.0.0.0:9");
  EXPECT_EQ(options.kv_blocks, 5u);
  EXPECT_EQ(options.sequences_max, 6u);
  EXPECT_EQ(options.step_tokens_max, 7u);
  EXPECT_EQ(options.process.drain, absl::Seconds(8));
  EXPECT_EQ(options.process.log_format, log::Format::kJson);
  EXPECT_EQ(options.process.log_level, log::Level::kDebug);
  EXPECT_TRUE(options.process.die_with_parent);
  EXPECT_EQ(options.parallel.ranks, 8u);
  EXPECT_EQ(options.parallel.leader, "unix-abstract:x");
  EXPECT_EQ(options.parallel.redundant_experts, 16u);
  EXPECT_EQ(options.parallel.placement_file, "p.json");
  EXPECT_EQ(options.parallel.rebalance, absl::Seconds(30));
  EXPECT_EQ(options.parallel.nodes, 2u);
  EXPECT_TRUE(options.parallel.fp8_dispatch);
  EXPECT_EQ(options.parallel.micro_batch_rows, 256u);
  EXPECT_EQ(options.parallel.join_max, absl::Seconds(20));
  EXPECT_EQ(options.parallel.step_wait_max, absl::Milliseconds(700));
}

TEST(WorkerOptions, ThePrefixCacheCanBeSwitchedOff) {
  const auto parsed = Parse({"--model", "models/nano", "--router", "a:1", "--prefix-cache", "off"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_FALSE(parsed->prefix_cache);
}

TEST(WorkerOptions, RefusalsNameTheFlagInOneLine) {
  struct Case {
    std::string says;
    std::vector<const char*> more;
  };
  const std::vector<Case> cases = {
      {"--router: 'nowhere' is not host:port", {"--router", "nowhere"}},
      {"--router: ':1' is not host:port", {"--router", ":1"}},
      {"--router: 'a:65536' is not host:port", {"--router", "a:65536"}},
      {"--router: 'a:x' is not host:port", {"--router", "a:x"}},
      {"--metrics-listen: 'here' is not host:port", {"--metrics-listen", "here"}},
      {"--role", {"--role", "leader"}},
      {"--sequences-max", {"--sequences-max", "0"}},
      {"--sequences-max", {"--sequences-max", "1025"}},
      {"--step-tokens-max", {"--step-tokens-max", "0"}},
      {"--kv-blocks", {"--kv-blocks", "-1"}},
      {"--prefix-cache", {"--prefix-cache", "maybe"}},
      {"--drain-seconds", {"--drain-seconds", "86401"}},
      {"--log-level", {"--log-level", "loud"}},
      {"--shoes", {"--shoes", "2"}},
      {"--rank 4 with --ranks 4: a rank is 0 to 3",
       {"--ranks", "4", "--rank", "4", "--group-leader", "a:1"}},
      {"--ranks 2 without --group-leader", {"--ranks", "2"}},
      {"--group-leader without --ranks", {"--group-leader", "a:1"}},
      {"--ranks 2 or more", {"--redundant-experts", "2"}},
      {"--ranks 2 or more", {"--placement", "p.json"}},
      {"--ranks", {"--ranks", "0"}},
      {"--ranks", {"--ranks", "1025"}},
      {"--group-leader: 'a' is neither host:port nor unix-abstract:NAME", {"--group-leader", "a"}},
      {"a name of 0 bytes, not 1 to 100", {"--group-leader", "unix-abstract:"}},
      {"--dispatch", {"--dispatch", "int4"}},
      {"--step-wait-ms", {"--step-wait-ms", "0"}},
      {"--join-seconds", {"--join-seconds", "0"}},
  };
  for (const Case& c : cases) {
    std::vector<const char*> arguments = {"--model", "m"};
    if (std::string(c.more[0]) != "--router") {
      arguments.insert(arguments.end(), {"--router", "a:1"});
    }
    arguments.insert(arguments.end(), c.more.begin(), c.more.end());
    const std::string status = Parse(arguments).status().ToString();
    EXPECT_THAT(status, HasSubstr(c.says));
    EXPECT_EQ(status.find('\n'), std::string::npos) << status;
  }
  EXPECT_THAT(Parse({"--router", "a:1"}).status().ToString(), HasSubstr("--model"));
  EXPECT_THAT(Parse({"--model", "m"}).status().ToString(), HasSubstr("--router"));
  const std::string many = [] {
    std::string list = "a:1";
    for (int i = 0; i < 64; ++i) list += ",a:1";
    return list;
  }();
  EXPECT_THAT(Parse({"--model", "m", "--router", many.c_str()}).status().ToString(),
              HasSubstr("65 addresses"));
}

TEST(WorkerOptions, HelpIsAnAnswer) {
  const auto parsed = Parse({"--help"});
  ASSERT_TRUE(parsed.ok());
  EXPECT_THAT(parsed->process.help, HasSubstr("--kv-blocks"));
}

KvDemand Demand() {
  return {.block_bytes = 1u << 20,
          .context_tokens = 1000,  // 16 blocks
          .sequences_max = 4,
          .memory_available_bytes = 1u << 30};
}

TEST(KvBudget, FullContextForEverySequenceIfMemoryAllows) {
  EXPECT_EQ(*KvBlocksFor(Demand()), 64u);
}

TEST(KvBudget, AtMostAQuarterOfTheMemory) {
  KvDemand demand = Demand();
  demand.memory_available_bytes = 100u << 20;
  EXPECT_EQ(*KvBlocksFor(demand), 25u);
}

TEST(KvBudget, TheFlagDecides) {
  KvDemand demand = Demand();
  demand.blocks_requested = 1024;
  EXPECT_EQ(*KvBlocksFor(demand), 1024u);
  demand.blocks_requested = 1025;
  const auto refused = KvBlocksFor(demand);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.status().ToString(), HasSubstr("--kv-blocks 1025 "));
  EXPECT_THAT(refused.status().ToString(), HasSubstr("1025 MiB; 1024 MiB of memory are available"));
}

TEST(KvBudget, NoRoomForOneBlockIsAnError) {
  KvDemand demand = Demand();
  demand.memory_available_bytes = 3u << 20;
  EXPECT_EQ(KvBlocksFor(demand).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace baleen::worker
