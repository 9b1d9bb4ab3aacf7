// In-memory twins of the two seams of router/dispatch: a link that keeps what is sent to a worker,
// and a sink that keeps what reaches the clients and checks it: tokens before the ending, one
// ending, nothing after it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "router/dispatch/links.h"

namespace baleen::router {

class MemoryLink final : public WorkerLink {
 public:
  void Send(RouterFrame frame) override { frames.push_back(std::move(frame)); }
  void Close(absl::Status why) override { closed = std::move(why); }

  // The frames of one kind so far, in order.
  template <typename Frame>
  std::vector<Frame> All() const {
    std::vector<Frame> found;
    for (const RouterFrame& frame : frames) {
      if (const auto* match = std::get_if<Frame>(&frame)) found.push_back(*match);
    }
    return found;
  }

  std::vector<RouterFrame> frames;
  std::optional<absl::Status> closed;
};

class MemorySink final : public ReplySink {
 public:
  bool Token(contract::RequestId id, ReplyToken token) override {
    EXPECT_FALSE(endings.contains(id.number)) << "a token after the ending of " << id.number;
    if (room == 0) return false;
    --room;
    tokens[id.number].push_back(std::move(token));
    return true;
  }

  bool PromptLogprobs(contract::RequestId id, router::PromptLogprobs logprobs) override {
    auto& all = prompt_logprobs[id.number];
    EXPECT_FALSE(endings.contains(id.number));
    EXPECT_TRUE(tokens[id.number].empty()) << "the prompt comes before the reply";
    EXPECT_EQ(logprobs.first, all.size()) << "in order, each once";
    EXPECT_FALSE(logprobs.entries.empty());
    if (room == 0) return false;
    for (auto& entry : logprobs.entries) all.push_back(std::move(entry));
    return true;
  }

  void End(contract::RequestId id, Ending ending) override {
    EXPECT_EQ(ending.tokens, tokens[id.number].size()) << "usage is what was delivered";
    EXPECT_TRUE(endings.emplace(id.number, std::move(ending)).second)
        << "a second ending of " << id.number;
  }

  std::vector<std::int32_t> Ids(std::uint64_t number) const {
    std::vector<std::int32_t> ids;
    const auto it = tokens.find(number);
    if (it == tokens.end()) return ids;
    for (const ReplyToken& token : it->second) ids.push_back(token.id);
    return ids;
  }

  std::map<std::uint64_t, std::vector<ReplyToken>> tokens;  // by request number
  std::map<std::uint64_t, std::vector<std::optional<TokenLogprobs>>> prompt_logprobs;
  std::map<std::uint64_t, Ending> endings;
  std::uint64_t room = ~std::uint64_t{0};  // tokens that are taken before there is no room
};

// A worker that passes CheckWorkerInfo.
inline WorkerInfo MakeWorkerInfo(const std::string& name, Role role) {
  return {.name = name,
          .incarnation = 77,
          .role = role,
          .model = {.name = "nano",
                    .digest = std::string(64, 'a'),
                    .context_tokens = 4096,
                    .vocabulary_size = 512,
                    .eos_token_ids = {1},
                    .kv_block_bytes = 1024,
                    .arithmetic = "test-1"},
          .kv_blocks_total = 1000,
          .sequences_max = 16,
          .step_tokens_max = 512,
          .data_plane_address = "at " + name};
}

}  // namespace baleen::router
