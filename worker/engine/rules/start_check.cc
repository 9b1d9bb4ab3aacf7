#include "worker/engine/rules/start_check.h"

#include <fmt/format.h>

#include <cmath>

#include "proto/contract/limits.h"
#include "proto/contract/status.h"

namespace baleen::worker {
namespace {

using contract::kBlockTokens;
using contract::MakeStatus;
using contract::Reason;

absl::Status CheckSampling(const SampleSpec& sampling) {
  const float temperature = sampling.temperature;
  const bool greedy = temperature == 0.0f;
  // Written so that NaN fails.
  if (!greedy &&
      !(temperature >= contract::kTemperatureMin && temperature <= contract::kTemperatureMax)) {
    return MakeStatus(Reason::kInvalidRequest,
                      fmt::format("temperature {} is neither 0 nor in [{}, {}]", temperature,
                                  contract::kTemperatureMin, contract::kTemperatureMax));
  }
  if (!(sampling.top_p > 0.0f && sampling.top_p <= 1.0f)) {
    return MakeStatus(Reason::kInvalidRequest,
                      fmt::format("top_p {} is not in (0, 1]", sampling.top_p));
  }
  const auto logprobs_max = static_cast<std::int32_t>(contract::kLogprobsMax);
  if (sampling.logprobs < -1 || sampling.logprobs > logprobs_max) {
    return MakeStatus(Reason::kInvalidRequest, fmt::format("logprobs {} is not in [-1, {}]",
                                                           sampling.logprobs, logprobs_max));
  }
  return absl::OkStatus();
}

absl::Status CheckTransfer(const StartCommand& start, const StartLimits& limits) {
  if (start.leg == Leg::kWhole) return absl::OkStatus();
  if (!limits.has_data_plane) {
    return MakeStatus(
        Reason::kInvalidRequest,
        fmt::format("leg {} needs a data plane, which this worker was started without",
                    NameOf(start.leg)));
  }
  if (start.transfer.value == 0) {
    return MakeStatus(Reason::kInvalidRequest,
                      fmt::format("leg {} without a transfer id", NameOf(start.leg)));
  }
  const std::size_t address_bytes = start.peer_address.size();
  if (start.leg == Leg::kPrefill &&
      (address_bytes == 0 || address_bytes > contract::kDataPlaneAddressBytesMax)) {
    return MakeStatus(Reason::kInvalidRequest,
                      fmt::format("peer data-plane address of {} bytes is not in [1, {}]",
                                  address_bytes, contract::kDataPlaneAddressBytesMax));
  }
  return absl::OkStatus();
}

absl::Status CheckPrompt(const StartCommand& start, const StartLimits& limits) {
  if (start.prompt.empty()) return MakeStatus(Reason::kInvalidRequest, "prompt is empty");
  if (start.tokens_max == 0) {
    return MakeStatus(Reason::kInvalidRequest, "tokens_max 0 is below the least, 1");
  }
  const std::uint64_t tokens = std::uint64_t{start.prompt.size()} + start.tokens_max;
  if (tokens > limits.context_tokens) {
    return MakeStatus(Reason::kPromptTooLong,
                      fmt::format("prompt of {} tokens and reply of {} exceed the context of {}",
                                  start.prompt.size(), start.tokens_max, limits.context_tokens));
  }
  const std::size_t hashes = start.block_hashes.size();
  if (hashes != 0 && hashes != start.prompt.size() / kBlockTokens) {
    return MakeStatus(Reason::kInvalidRequest,
                      fmt::format("{} block hashes for the {} whole blocks of the prompt", hashes,
                                  start.prompt.size() / kBlockTokens));
  }
  for (std::size_t i = 0; i < start.prompt.size(); ++i) {
    const std::int32_t id = start.prompt[i];
    if (id < 0 || static_cast<std::uint32_t>(id) >= limits.vocabulary_size) {
      return MakeStatus(Reason::kInvalidRequest,
                        fmt::format("prompt token {} at index {} is not in the vocabulary of {}",
                                    id, i, limits.vocabulary_size));
    }
  }
  return absl::OkStatus();
}

std::uint64_t BlocksFor(std::uint64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

}  // namespace

std::uint32_t PromptBlocks(const StartCommand& start) {
  return static_cast<std::uint32_t>(BlocksFor(start.prompt.size()));
}

std::uint64_t BlocksNeeded(const StartCommand& start) {
  if (start.leg == Leg::kPrefill) return PromptBlocks(start);
  return BlocksFor(std::uint64_t{start.prompt.size()} + start.tokens_max - 1);
}

absl::Status CheckStart(const StartCommand& start, const StartLimits& limits) {
  if (!Takes(limits.role, start.leg)) {
    return MakeStatus(Reason::kInvalidRequest, fmt::format("leg {} is not for a {} worker",
                                                           NameOf(start.leg), NameOf(limits.role)));
  }
  for (const absl::Status& status :
       {CheckTransfer(start, limits), CheckPrompt(start, limits), CheckSampling(start.sampling)}) {
    if (!status.ok()) return status;
  }
  if (const std::uint64_t blocks = BlocksNeeded(start); blocks > limits.blocks_total) {
    return MakeStatus(Reason::kPromptTooLong,
                      fmt::format("prompt and reply need {} KV blocks, this worker has {}", blocks,
                                  limits.blocks_total));
  }
  return absl::OkStatus();
}

}  // namespace baleen::worker
