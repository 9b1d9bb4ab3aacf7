#include "router/server/chunk.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "proto/baleen/v1/inference.pb.h"

namespace baleen::router {
namespace {

std::uint64_t Microseconds(absl::Duration duration) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, absl::ToInt64Microseconds(duration)));
}

std::string TextOf(const ModelText& model, std::int32_t id) {
  if (model.tokenizer == nullptr) return {};
  return std::string(model.tokenizer->table().At(id).bytes);
}

void Fill(const ModelText& model, std::int32_t id, const TokenLogprobs& logprobs,
          v1::TokenLogprob& out) {
  out.set_token_id(id);
  out.set_text(TextOf(model, id));
  out.set_logprob(logprobs.sampled);
  for (const auto& [top_id, value] : logprobs.top) {
    v1::TopLogprob& top = *out.add_top();
    top.set_token_id(top_id);
    top.set_text(TextOf(model, top_id));
    top.set_logprob(value);
  }
}

v1::FinishReason ToProto(ChoiceFinish finish) {
  switch (finish) {
    case ChoiceFinish::kStop:
      return v1::FINISH_REASON_STOP;
    case ChoiceFinish::kLength:
      return v1::FINISH_REASON_LENGTH;
    case ChoiceFinish::kToolCalls:
      return v1::FINISH_REASON_TOOL_CALLS;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

void FillTotals(const ReplyTotals& totals, v1::Usage& usage, v1::Timing& timing) {
  usage.set_prompt_tokens(totals.prompt_tokens);
  usage.set_completion_tokens(totals.completion_tokens);
  usage.set_reasoning_tokens(totals.reasoning_tokens);
  usage.set_cached_tokens(totals.cached_tokens);
  usage.set_seed(totals.seed);
  timing.set_prefill_worker(totals.prefill_worker);
  timing.set_decode_worker(totals.decode_worker);
  timing.set_time_to_first_token_us(Microseconds(totals.to_first_token));
  timing.set_total_us(Microseconds(totals.total));
  timing.set_kv_transfer_bytes(totals.kv_transfer_bytes);
}

// What both kinds of chunk have.
template <typename Chunk>
void FillCommon(const std::string& request_id, const ModelText& model, ReplyPart& part,
                Chunk& chunk) {
  chunk.set_request_id(request_id);
  chunk.set_choice(part.choice);
  chunk.set_delta(std::move(part.delta.content));
  chunk.mutable_token_ids()->Add(part.token_ids.begin(), part.token_ids.end());
  chunk.set_first_token_index(part.first_token_index);
  for (std::size_t i = 0; i < part.logprobs.size(); ++i) {
    Fill(model, part.token_ids[i], part.logprobs[i], *chunk.add_logprobs());
  }
  if (part.finish) chunk.set_finish_reason(ToProto(*part.finish));
  if (part.totals) FillTotals(*part.totals, *chunk.mutable_usage(), *chunk.mutable_timing());
}

}  // namespace

v1::GenerateChunk ToGenerateChunk(const std::string& request_id, const ModelText& model,
                                  ReplyPart part) {
  v1::GenerateChunk chunk;
  FillCommon(request_id, model, part, chunk);
  chunk.set_prompt_text(std::move(part.prompt_text));
  for (const PromptTokenLogprobs& entry : part.prompt_logprobs) {
    v1::TokenLogprob& out = *chunk.add_prompt_logprobs();
    if (entry.logprobs) {
      Fill(model, entry.id, *entry.logprobs, out);
    } else {
      out.set_token_id(entry.id);
      out.set_text(TextOf(model, entry.id));
    }
  }
  return chunk;
}

v1::ChatChunk ToChatChunk(const std::string& request_id, const ModelText& model, ReplyPart part) {
  v1::ChatChunk chunk;
  FillCommon(request_id, model, part, chunk);
  chunk.set_reasoning_delta(std::move(part.delta.reasoning));
  for (ToolCallDelta& call : part.delta.tool_calls) {
    v1::ToolCallDelta& out = *chunk.add_tool_calls();
    out.set_index(call.index);
    out.set_id(std::move(call.id));
    out.set_name(std::move(call.name));
    out.set_arguments_delta(std::move(call.arguments));
  }
  chunk.mutable_prompt_token_ids()->Add(part.prompt_token_ids.begin(), part.prompt_token_ids.end());
  return chunk;
}

std::string SerializeChunk(bool chat, const Generation& generation, ReplyPart part) {
  const ModelText& model = *generation.model();
  if (chat) {
    return ToChatChunk(generation.request_id(), model, std::move(part)).SerializeAsString();
  }
  return ToGenerateChunk(generation.request_id(), model, std::move(part)).SerializeAsString();
}

}  // namespace baleen::router
