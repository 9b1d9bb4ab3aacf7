// An engine with a fake model on a manual clock, and a router's view of what it says.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "observability/base/clock.h"
#include "observability/metrics/metrics.h"
#include "tests/fakes/fake_model.h"
#include "worker/engine/engine.h"

namespace baleen::worker {

// What a router has heard of one request from one rank. Every rule of the contract that can be seen
// here is checked as frames come.
struct Heard {
  std::vector<std::optional<TokenLogprobs>> prompt_logprobs;
  std::vector<std::uint32_t> sequences;
  std::vector<std::int32_t> tokens;
  std::vector<TokenOutput> outputs;
  std::optional<EndedOutput> ended;
};

class RecordingSink final : public OutputSink {
 public:
  void Deliver(LinkId link, StepReport report) override {
    EXPECT_TRUE(!report.prompt_logprobs.empty() || !report.tokens.empty() || !report.ended.empty())
        << "nothing to say";
    for (PromptLogprobsOutput& output : report.prompt_logprobs) {
      Heard& heard = requests[output.key];
      EXPECT_FALSE(heard.ended.has_value() || !heard.tokens.empty()) << "the prompt comes first";
      EXPECT_EQ(output.first, heard.prompt_logprobs.size()) << "a gap in the prompt";
      for (auto& entry : output.entries) heard.prompt_logprobs.push_back(std::move(entry));
    }
    for (TokenOutput& token : report.tokens) {
      Heard& heard = requests[token.key];
      EXPECT_FALSE(heard.ended.has_value()) << "a token after the end";
      if (!heard.sequences.empty()) {
        EXPECT_EQ(token.sequence, heard.sequences.back() + 1) << "a gap between tokens";
      }
      heard.sequences.push_back(token.sequence);
      heard.tokens.push_back(token.token.token);
      heard.outputs.push_back(std::move(token));
    }
    for (EndedOutput& ended : report.ended) {
      Heard& heard = requests[ended.key];
      EXPECT_FALSE(heard.ended.has_value()) << "a second end";
      EXPECT_EQ(ended.tokens, heard.tokens.size());
      EXPECT_EQ(ended.reason == EndReason::kError, !ended.status.ok());
      ended_keys.push_back(ended.key);
      heard.ended = std::move(ended);
    }
    links.push_back(link);
    load = report.load;
  }

  const Heard& Of(const contract::RequestKey& key) { return requests[key]; }

  std::map<contract::RequestKey, Heard> requests;
  std::vector<contract::RequestKey> ended_keys;  // in the order of their ends
  std::vector<LinkId> links;                     // of each report
  LoadReport load;
};

struct HarnessOptions {
  EngineOptions engine;
  std::uint32_t blocks = 64;
  FakeModelOptions model;  // limits are set to fit
  Grammars* grammars = nullptr;
};

class Harness {
 public:
  // `clock` and `transfer` (may be null) outlive the harness.
  Harness(const HarnessOptions& options, ManualClock& clock, KvTransfer* transfer = nullptr)
      : clock(clock),
        model(ModelOptionsOf(options)),
        metrics(registry, {.version = "0", .component = "worker"}),
        feed({.blocks = options.blocks}),
        pool(*BlockPool::Create(
            {.blocks = options.blocks, .block_bytes = model.info().kv_block_bytes, .feed = &feed})),
        engine(options.engine, {.clock = clock,
                                .model = model,
                                .blocks = *pool,
                                .transfer = transfer,
                                .inbox = inbox,
                                .sink = sink,
                                .metrics = metrics,
                                .cache_feed = &feed,
                                .grammars = options.grammars}) {}

  void Push(Command command) {
    const absl::Status status = inbox.Push(std::move(command));
    ASSERT_TRUE(status.ok()) << status;
  }

  // Steps until nothing more happens by itself.
  void RunUntilIdle() {
    for (int i = 0; i < 100'000; ++i) {
      if (!engine.RunOnce()) return;
    }
    FAIL() << "the engine never becomes idle";
  }

  double Outcome(std::string_view name) const { return metrics.RequestsTotal(name).Value(); }

  static FakeModelOptions ModelOptionsOf(const HarnessOptions& options) {
    FakeModelOptions model = options.model;
    model.limits = StepLimitsFor(options.engine.scheduler);
    return model;
  }

  ManualClock& clock;
  FakeModel model;
  metrics::Registry registry;
  metrics::WorkerMetrics metrics;
  CacheFeed feed;
  std::unique_ptr<BlockPool> pool;
  Inbox inbox{InboxLimits{}};
  RecordingSink sink;
  Engine engine;
};

constexpr LinkId kLink{.value = 1};

inline contract::RequestKey KeyOf(std::uint64_t number, std::uint32_t attempt = 1) {
  return {.id = {.router = 7, .number = number}, .attempt = attempt};
}

// Token ids that depend on `salt`, within the fake model's vocabulary.
inline std::vector<std::int32_t> PromptOf(std::uint32_t tokens, std::uint32_t salt = 0) {
  std::vector<std::int32_t> prompt(tokens);
  for (std::uint32_t i = 0; i < tokens; ++i) {
    prompt[i] = static_cast<std::int32_t>((i * 7 + salt * 13 + i / 5) % 64);
  }
  return prompt;
}

inline StartCommand WholeOf(std::uint64_t number, std::uint32_t prompt_tokens,
                            std::uint32_t tokens_max) {
  return {.link = kLink,
          .key = KeyOf(number),
          .leg = Leg::kWhole,
          .prompt = PromptOf(prompt_tokens, static_cast<std::uint32_t>(number)),
          .sampling = {.temperature = 1.0f, .seed = number},
          .tokens_max = tokens_max,
          .ignore_eos = true};
}

// As a router of one tenant names the blocks of a prompt.
inline std::vector<contract::BlockHash> HashesOf(const std::vector<std::int32_t>& prompt) {
  return contract::HashBlocks({.tenant_salt = "tenant", .model_digest = "fake"}, prompt);
}

}  // namespace baleen::worker
