#include "router/server/request/read_sampling.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "observability/base/status_macros.h"
#include "proto/contract/ids.h"
#include "proto/contract/limits.h"
#include "router/server/request/invalid.h"

namespace baleen::router {
namespace {

// All comparisons here are written so that NaN fails them.

absl::StatusOr<float> ReadTemperature(float temperature) {
  if (temperature == 0.0f) return 0.0f;  // also -0
  if (temperature >= contract::kTemperatureMin && temperature <= contract::kTemperatureMax) {
    return temperature;
  }
  return Invalid("sampling.temperature {} is neither 0 nor {} to {}", temperature,
                 contract::kTemperatureMin, contract::kTemperatureMax);
}

absl::Status CheckBetween(std::string_view field, float value, float min, float max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return Invalid("{} {} is not {} to {}", field, value, min, max);
}

absl::Status CheckAboveZero(std::string_view field, float value, float max) {
  if (value > 0.0f && value <= max) return absl::OkStatus();
  return Invalid("{} {} is not above 0 and at most {}", field, value, max);
}

absl::StatusOr<std::vector<LogitBias>> ReadBiases(
    const google::protobuf::RepeatedPtrField<v1::LogitBias>& biases) {
  if (static_cast<std::size_t>(biases.size()) > contract::kLogitBiasesMax) {
    return Invalid("sampling.logit_bias has {} entries, limit {}", biases.size(),
                   contract::kLogitBiasesMax);
  }
  std::vector<LogitBias> result;
  result.reserve(static_cast<std::size_t>(biases.size()));
  for (const v1::LogitBias& bias : biases) {
    BALEEN_RETURN_IF_ERROR(CheckBetween("sampling.logit_bias", bias.bias(),
                                        -contract::kLogitBiasMax, contract::kLogitBiasMax));
    result.push_back({bias.token_id(), bias.bias()});
  }
  std::ranges::sort(result, {}, &LogitBias::token);
  const auto twice = std::ranges::adjacent_find(result, {}, &LogitBias::token);
  if (twice == result.end()) return result;
  return Invalid("sampling.logit_bias has token {} twice", twice->token);
}

}  // namespace

absl::StatusOr<Sampling> ReadSampling(const v1::SamplingParams& params) {
  Sampling sampling;
  if (params.has_temperature()) {
    BALEEN_ASSIGN_OR_RETURN(sampling.temperature, ReadTemperature(params.temperature()));
  }
  if (params.has_top_p()) {
    BALEEN_RETURN_IF_ERROR(CheckAboveZero("sampling.top_p", params.top_p(), 1.0f));
    sampling.top_p = params.top_p();
  }
  sampling.top_k = params.top_k();
  sampling.seed = params.has_seed() ? params.seed() : contract::RandomNonZero();
  if (params.has_min_p()) {
    BALEEN_RETURN_IF_ERROR(CheckBetween("sampling.min_p", params.min_p(), 0.0f, 1.0f));
    sampling.min_p = params.min_p();
  }
  if (params.has_repetition_penalty()) {
    BALEEN_RETURN_IF_ERROR(CheckAboveZero("sampling.repetition_penalty",
                                          params.repetition_penalty(),
                                          contract::kRepetitionPenaltyMax));
    sampling.repetition_penalty = params.repetition_penalty();
  }
  BALEEN_RETURN_IF_ERROR(CheckBetween("sampling.frequency_penalty", params.frequency_penalty(),
                                      -contract::kPenaltyMax, contract::kPenaltyMax));
  BALEEN_RETURN_IF_ERROR(CheckBetween("sampling.presence_penalty", params.presence_penalty(),
                                      -contract::kPenaltyMax, contract::kPenaltyMax));
  sampling.frequency_penalty = params.frequency_penalty();
  sampling.presence_penalty = params.presence_penalty();
  BALEEN_ASSIGN_OR_RETURN(sampling.biases, ReadBiases(params.logit_bias()));
  return sampling;
}

absl::StatusOr<StopRules> ReadStop(v1::StopParams params) {
  StopRules stop{.tokens_min = params.min_tokens(), .ignore_eos = params.ignore_eos()};
  if (params.has_max_tokens()) {
    if (params.max_tokens() < 1 || params.max_tokens() > contract::kCompletionTokensMax) {
      return Invalid("stop.max_tokens {} is not 1 to {}", params.max_tokens(),
                     contract::kCompletionTokensMax);
    }
    stop.tokens_max = params.max_tokens();
  }
  const std::uint32_t tokens_min_max = stop.tokens_max.value_or(contract::kCompletionTokensMax);
  if (stop.tokens_min > tokens_min_max) {
    return Invalid("stop.min_tokens {} is above stop.max_tokens {}", stop.tokens_min,
                   tokens_min_max);
  }
  if (static_cast<std::size_t>(params.text_size()) > contract::kStopTextsMax) {
    return Invalid("stop.text has {} entries, limit {}", params.text_size(),
                   contract::kStopTextsMax);
  }
  for (std::string& text : *params.mutable_text()) {
    if (text.empty() || text.size() > contract::kStopTextBytesMax) {
      return Invalid("stop.text[{}] has {} bytes, not 1 to {}", stop.texts.size(), text.size(),
                     contract::kStopTextBytesMax);
    }
    stop.texts.push_back(std::move(text));
  }
  if (static_cast<std::size_t>(params.token_ids_size()) > contract::kStopTokenIdsMax) {
    return Invalid("stop.token_ids has {} entries, limit {}", params.token_ids_size(),
                   contract::kStopTokenIdsMax);
  }
  stop.token_ids.assign(params.token_ids().begin(), params.token_ids().end());
  return stop;
}

absl::StatusOr<std::int32_t> ReadLogprobs(std::string_view field,
                                          std::optional<std::uint32_t> count) {
  if (!count) return -1;
  if (*count > contract::kLogprobsMax) {
    return Invalid("{} {} is not 0 to {}", field, *count, contract::kLogprobsMax);
  }
  return static_cast<std::int32_t>(*count);
}

}  // namespace baleen::router
