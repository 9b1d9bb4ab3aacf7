#include "tools/cli/client/render.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace baleen::cli {
namespace {

using Json = nlohmann::ordered_json;

template <typename Chunk>
absl::Status CheckFollows(const Chunk& chunk, std::size_t tokens_so_far,
                          v1::FinishReason finish_so_far) {
  if (finish_so_far != v1::FINISH_REASON_UNSPECIFIED) {
    return absl::InternalError("the router sends more after the end of the reply");
  }
  if (chunk.token_ids_size() > 0 && chunk.first_token_index() != tokens_so_far) {
    return absl::InternalError(fmt::format("the router sends token {} where token {} is due",
                                           chunk.first_token_index(), tokens_so_far));
  }
  return absl::OkStatus();
}

template <typename Chunk, typename Result>
void AppendEnd(const Chunk& chunk, Result& result) {
  if (chunk.finish_reason() == v1::FINISH_REASON_UNSPECIFIED) return;
  result.finish_reason = chunk.finish_reason();
  result.usage = chunk.usage();
  result.timing = chunk.timing();
}

Json ToJson(const v1::Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens()},
          {"completion_tokens", usage.completion_tokens()},
          {"reasoning_tokens", usage.reasoning_tokens()},
          {"cached_tokens", usage.cached_tokens()},
          {"seed", usage.seed()}};
}

Json ToJson(const v1::Timing& timing) {
  return {{"prefill_worker", timing.prefill_worker()},
          {"decode_worker", timing.decode_worker()},
          {"time_to_first_token_us", timing.time_to_first_token_us()},
          {"total_us", timing.total_us()},
          {"kv_transfer_bytes", timing.kv_transfer_bytes()}};
}

Json ToJson(const v1::TokenLogprob& logprob) {
  Json top = Json::array();
  for (const v1::TopLogprob& entry : logprob.top()) {
    top.push_back(Json::array({entry.token_id(), double{entry.logprob()}}));
  }
  return {{"token_id", logprob.token_id()},
          {"logprob", double{logprob.logprob()}},
          {"top", std::move(top)}};
}

// The router sends valid UTF-8; should it ever not, a script still gets valid JSON.
std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

absl::Status Append(const v1::GenerateChunk& chunk, GenerateResult& result) {
  const absl::Status follows = CheckFollows(chunk, result.token_ids.size(), result.finish_reason);
  if (!follows.ok()) return follows;
  result.token_ids.insert(result.token_ids.end(), chunk.token_ids().begin(),
                          chunk.token_ids().end());
  result.text += chunk.delta();
  result.logprobs.insert(result.logprobs.end(), chunk.logprobs().begin(), chunk.logprobs().end());
  AppendEnd(chunk, result);
  return absl::OkStatus();
}

absl::Status Append(const v1::ChatChunk& chunk, ChatResult& result) {
  const absl::Status follows = CheckFollows(chunk, result.tokens, result.finish_reason);
  if (!follows.ok()) return follows;
  result.tokens += static_cast<std::uint32_t>(chunk.token_ids_size());
  result.reasoning += chunk.reasoning_delta();
  result.content += chunk.delta();
  AppendEnd(chunk, result);
  return absl::OkStatus();
}

absl::Status CheckEnded(v1::FinishReason finish_reason) {
  if (finish_reason != v1::FINISH_REASON_UNSPECIFIED) return absl::OkStatus();
  return absl::InternalError("the router ended the reply without saying why it is finished");
}

std::string_view NameOf(v1::FinishReason reason) {
  if (reason == v1::FINISH_REASON_STOP) return "stop";
  if (reason == v1::FINISH_REASON_LENGTH) return "length";
  return "";
}

std::string ToJson(const GenerateResult& result) {
  Json logprobs = Json::array();
  for (const v1::TokenLogprob& logprob : result.logprobs) logprobs.push_back(ToJson(logprob));
  return Dump({{"token_ids", result.token_ids},
               {"text", result.text},
               {"logprobs", std::move(logprobs)},
               {"finish_reason", std::string(NameOf(result.finish_reason))},
               {"usage", ToJson(result.usage)}});
}

std::string ToJson(const ChatResult& result) {
  return Dump({{"reasoning", result.reasoning},
               {"content", result.content},
               {"finish_reason", std::string(NameOf(result.finish_reason))},
               {"usage", ToJson(result.usage)},
               {"timing", ToJson(result.timing)}});
}

double TokensPerSecond(const v1::Usage& usage, const v1::Timing& timing) {
  if (usage.completion_tokens() < 2 || timing.total_us() <= timing.time_to_first_token_us()) {
    return 0;
  }
  const auto us = static_cast<double>(timing.total_us() - timing.time_to_first_token_us());
  return (usage.completion_tokens() - 1) * 1e6 / us;
}

}  // namespace baleen::cli
