#include "worker/engine/rules/start_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "proto/contract/limits.h"
#include "proto/contract/status.h"

namespace baleen::worker {
namespace {

using contract::kBlockTokens;
using contract::MakeStatus;
using contract::Reason;

// Written so that NaN is outside.
absl::Status CheckRange(std::string_view field, float value, float low, float high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return MakeStatus(Reason::kInvalidRequest,
                    fmt::format("{} {} is not in [{}, {}]", field, value, low, high));
}

absl::Status CheckLogitRules(const SampleSpec& sampling) {
  constexpr float kMax = contract::kPenaltyMax;
  for (const absl::Status& status :
       {CheckRange("min_p", sampling.min_p, 0.0f, 1.0f),
        CheckRange("frequency_penalty", sampling.frequency_penalty, -kMax, kMax),
        CheckRange("presence_penalty", sampling.presence_penalty, -kMax, kMax)}) {
    if (!status.ok()) return status;
  }
  const float repetition = sampling.repetition_penalty;
  if (!(repetition > 0.0f && repetition <= contract::kRepetitionPenaltyMax)) {
    return MakeStatus(Reason::kInvalidRequest,
                      fmt::format("repetition_penalty {} is not in (0, {}]", repetition,
                                  contract::kRepetitionPenaltyMax));
  }
  for (const LogitBias& bias : sampling.biases) {
    const float limit = contract::kLogitBiasMax;
    if (absl::Status status = CheckRange("logit_bias", bias.bias, -limit, limit); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

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
  return CheckLogitRules(sampling);
}

absl::Status CheckInVocabulary(std::string_view field, std::int32_t id, const StartLimits& limits) {
  if (id >= 0 && static_cast<std::uint32_t>(id) < limits.vocabulary_size) return absl::OkStatus();
  return MakeStatus(Reason::kInvalidRequest,
                    fmt::format("{} has token {}, which is not in the vocabulary of {}", field, id,
                                limits.vocabulary_size));
}

// Token ids and counts of the reply's rules. Lists are short: their lengths are bounded on arrival.
absl::Status CheckRules(const StartCommand& start, const StartLimits& limits) {
  for (const std::int32_t id : start.stop_token_ids) {
    if (absl::Status status = CheckInVocabulary("stop_token_ids", id, limits); !status.ok()) {
      return status;
    }
  }
  std::vector<std::int32_t> biased;
  for (const LogitBias& bias : start.sampling.biases) {
    if (absl::Status status = CheckInVocabulary("logit_bias", bias.token, limits); !status.ok()) {
      return status;
    }
    biased.push_back(bias.token);
  }
  std::sort(biased.begin(), biased.end());
  if (const auto twice = std::adjacent_find(biased.begin(), biased.end()); twice != biased.end()) {
    return MakeStatus(Reason::kInvalidRequest,
                      fmt::format("logit_bias has token {} more than once", *twice));
  }
  if (start.tokens_min > start.tokens_max) {
    return MakeStatus(Reason::kInvalidRequest, fmt::format("tokens_min {} is above tokens_max {}",
                                                           start.tokens_min, start.tokens_max));
  }
  if (start.grammar.has_value() && !limits.has_grammars) {
    return MakeStatus(Reason::kInvalidRequest, "format: this worker was started without grammars");
  }
  if (!start.prompt_logprobs.has_value()) return absl::OkStatus();
  if (start.leg == Leg::kDecode) {
    return MakeStatus(Reason::kInvalidRequest,
                      "prompt_logprobs on a leg that does not compute the prompt");
  }
  if (*start.prompt_logprobs > contract::kLogprobsMax) {
    return MakeStatus(Reason::kInvalidRequest,
                      fmt::format("prompt_logprobs {} is not in [0, {}]", *start.prompt_logprobs,
                                  contract::kLogprobsMax));
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
  for (const absl::Status& status : {CheckTransfer(start, limits), CheckPrompt(start, limits),
                                     CheckSampling(start.sampling), CheckRules(start, limits)}) {
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
