// Replies put together from their chunks, and the JSON that scripts read.
//
// The JSON is stable: keys keep their names, order and types, and are always there; keys may be
// added. Numbers are the exact values: a log-probability parsed as double and rounded to float is
// the float that the worker computed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "proto/baleen/v1/inference.pb.h"

namespace baleen::cli {

struct GenerateResult {
  std::vector<std::int32_t> token_ids;
  std::string text;
  std::vector<v1::TokenLogprob> logprobs;
  v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;
  v1::Usage usage;
  v1::Timing timing;
};

struct ChatResult {
  std::string reasoning;
  std::string content;
  std::uint32_t tokens = 0;
  v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;
  v1::Usage usage;
  v1::Timing timing;
};

// Appends a chunk. INTERNAL if it does not follow the ones before: a token is missing or doubled,
// or the reply has ended already.
absl::Status Append(const v1::GenerateChunk& chunk, GenerateResult& result);
absl::Status Append(const v1::ChatChunk& chunk, ChatResult& result);

// INTERNAL if the stream has ended without a last chunk.
absl::Status CheckEnded(v1::FinishReason finish_reason);

// "stop" or "length"; empty while not finished.
std::string_view NameOf(v1::FinishReason reason);

// One line, without newline. Log-probabilities of -infinity or NaN become null.
std::string ToJson(const GenerateResult& result);
std::string ToJson(const ChatResult& result);

// Tokens a second after the first one; 0 when there is no second one.
double TokensPerSecond(const v1::Usage& usage, const v1::Timing& timing);

}  // namespace baleen::cli
