#include "router/server/openai/reply/reply_json.h"

#include <algorithm>
#include <cmath>

#include "router/server/openai/json/writer.h"
#include "router/text/utf8.h"

namespace baleen::router::openai {
namespace {

using json::AppendBytesAsString;
using json::AppendInteger;
using json::AppendNumber;
using json::AppendString;

constexpr std::size_t kFingerprintDigits = 10;

void Comma(std::string* out) {
  if (!out->empty() && out->back() != '[' && out->back() != '{') *out += ',';
}

void AppendMember(std::string_view name, std::uint64_t value, std::string* out) {
  *out += name;
  AppendInteger(value, out);
}

// Of a token that can not be: OpenAI's own word for it.
void AppendLogprob(float value, std::string* out) {
  constexpr float kImpossible = -9999.0f;
  AppendNumber(std::isfinite(value) ? value : kImpossible, out);
}

std::string_view BytesOf(std::int32_t id, const TokenTable* table) {
  return table == nullptr ? std::string_view() : table->At(id).bytes;
}

// "token":"..","bytes":[..]
void AppendToken(std::int32_t id, const TokenTable* table, std::string* out) {
  const std::string_view bytes = BytesOf(id, table);
  *out += "\"token\":";
  AppendBytesAsString(bytes, out);
  *out += ",\"bytes\":[";
  for (const char byte : bytes) {
    Comma(out);
    AppendInteger(std::uint64_t{static_cast<unsigned char>(byte)}, out);
  }
  *out += ']';
}

// A token as a key, different for different tokens: what is no text is spelled as its bytes, what
// has none as its id.
void AppendTokenName(std::int32_t id, const TokenTable* table, std::string* out) {
  constexpr char kHex[] = "0123456789abcdef";
  const std::string_view bytes = BytesOf(id, table);
  if (bytes.empty()) {
    *out += "\"token_id:";
    AppendInteger(std::int64_t{id}, out);
    *out += '"';
    return;
  }
  if (IsValidUtf8(bytes)) {
    AppendString(bytes, out);
    return;
  }
  *out += "\"bytes:";
  for (const char byte : bytes) {
    *out += "\\\\x";
    *out += kHex[static_cast<unsigned char>(byte) >> 4];
    *out += kHex[static_cast<unsigned char>(byte) & 15];
  }
  *out += '"';
}

std::uint64_t Microseconds(absl::Duration duration) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, absl::ToInt64Microseconds(duration)));
}

}  // namespace

void AppendHead(const AnswerHead& head, bool stream, std::string* out) {
  const bool chat = head.api == Api::kChat;
  *out += chat ? "{\"id\":\"chatcmpl-" : "{\"id\":\"cmpl-";
  *out += head.request_id;
  *out += "\",\"object\":\"";
  *out += !chat ? "text_completion" : stream ? "chat.completion.chunk" : "chat.completion";
  *out += "\",\"created\":";
  AppendInteger(std::int64_t{absl::ToUnixSeconds(head.created)}, out);
  *out += ",\"model\":";
  AppendString(head.model, out);
  *out += ",\"system_fingerprint\":\"fp_";
  *out += head.model_digest.substr(0, kFingerprintDigits);
  *out += '"';
}

void AppendFinish(const std::optional<ChoiceFinish>& finish, std::string* out) {
  if (!finish) {
    *out += "null";
  } else if (*finish == ChoiceFinish::kStop) {
    *out += "\"stop\"";
  } else if (*finish == ChoiceFinish::kLength) {
    *out += "\"length\"";
  } else {
    *out += "\"tool_calls\"";
  }
}

void AppendUsage(const ReplyTotals& totals, std::string* out) {
  AppendMember("\"usage\":{\"prompt_tokens\":", totals.prompt_tokens, out);
  AppendMember(",\"completion_tokens\":", totals.completion_tokens, out);
  AppendMember(",\"total_tokens\":", std::uint64_t{totals.prompt_tokens} + totals.completion_tokens,
               out);
  AppendMember(",\"prompt_tokens_details\":{\"cached_tokens\":", totals.cached_tokens, out);
  AppendMember("},\"completion_tokens_details\":{\"reasoning_tokens\":", totals.reasoning_tokens,
               out);
  *out += "}}";
}

void AppendDetails(const ReplyTotals& totals, std::string* out) {
  AppendMember("\"baleen\":{\"seed\":", totals.seed, out);
  *out += ",\"prefill_worker\":";
  AppendString(totals.prefill_worker, out);
  *out += ",\"decode_worker\":";
  AppendString(totals.decode_worker, out);
  AppendMember(",\"time_to_first_token_us\":", Microseconds(totals.to_first_token), out);
  AppendMember(",\"total_us\":", Microseconds(totals.total), out);
  AppendMember(",\"kv_transfer_bytes\":", totals.kv_transfer_bytes, out);
  *out += '}';
}

void AppendTokenIds(std::span<const std::int32_t> ids, std::string* out) {
  *out += '[';
  for (const std::int32_t id : ids) {
    Comma(out);
    AppendInteger(std::int64_t{id}, out);
  }
  *out += ']';
}

void AppendToolCallDeltas(std::span<const ToolCallDelta> calls, std::string* out) {
  for (const ToolCallDelta& call : calls) {
    Comma(out);
    AppendMember("{\"index\":", call.index, out);
    if (!call.id.empty()) {
      *out += ",\"id\":";
      AppendString(call.id, out);
      *out += ",\"type\":\"function\"";
    }
    *out += ",\"function\":{";
    if (!call.name.empty()) {
      *out += "\"name\":";
      AppendString(call.name, out);
      *out += ',';
    }
    *out += "\"arguments\":";
    AppendString(call.arguments, out);
    *out += "}}";
  }
}

void AppendChatLogprobs(std::span<const std::int32_t> ids, std::span<const TokenLogprobs> logprobs,
                        const TokenTable* table, std::string* out) {
  for (std::size_t i = 0; i < logprobs.size(); ++i) {
    Comma(out);
    *out += '{';
    AppendToken(ids[i], table, out);
    *out += ",\"logprob\":";
    AppendLogprob(logprobs[i].sampled, out);
    *out += ",\"top_logprobs\":[";
    for (const auto& [id, value] : logprobs[i].top) {
      Comma(out);
      *out += '{';
      AppendToken(id, table, out);
      *out += ",\"logprob\":";
      AppendLogprob(value, out);
      *out += '}';
    }
    *out += "]}";
  }
}

void CompletionLogprobs::Add(std::int32_t id, const TokenLogprobs* logprobs,
                             const TokenTable* table) {
  for (std::string* array : {&tokens_, &values_, &tops_, &offsets_}) {
    if (!array->empty()) *array += ',';
  }
  AppendTokenName(id, table, &tokens_);
  AppendInteger(characters_, &offsets_);
  for (const char byte : BytesOf(id, table)) {
    characters_ += (static_cast<unsigned char>(byte) & 0xC0) != 0x80 ? 1 : 0;
  }
  if (logprobs == nullptr) {
    values_ += "null";
    tops_ += "null";
    return;
  }
  AppendLogprob(logprobs->sampled, &values_);
  tops_ += '{';
  for (const auto& [top, value] : logprobs->top) {
    Comma(&tops_);
    AppendTokenName(top, table, &tops_);
    tops_ += ':';
    AppendLogprob(value, &tops_);
  }
  tops_ += '}';
}

void CompletionLogprobs::Take(std::string* out) {
  *out += "{\"tokens\":[";
  *out += tokens_;
  *out += "],\"token_logprobs\":[";
  *out += values_;
  *out += "],\"top_logprobs\":[";
  *out += tops_;
  *out += "],\"text_offset\":[";
  *out += offsets_;
  *out += "]}";
  for (std::string* array : {&tokens_, &values_, &tops_, &offsets_}) array->clear();
}

void AppendPromptLogprobs(std::span<const PromptTokenLogprobs> logprobs, const TokenTable* table,
                          std::string* out) {
  const auto entry = [&](std::int32_t id, float value) {
    Comma(out);
    *out += '"';
    AppendInteger(std::int64_t{id}, out);
    *out += "\":{\"logprob\":";
    AppendLogprob(value, out);
    *out += ",\"decoded_token\":";
    AppendBytesAsString(BytesOf(id, table), out);
    *out += '}';
  };
  for (const PromptTokenLogprobs& token : logprobs) {
    Comma(out);
    if (!token.logprobs) {
      *out += "null";
      continue;
    }
    *out += '{';
    entry(token.id, token.logprobs->sampled);
    for (const auto& [id, value] : token.logprobs->top) {
      if (id != token.id) entry(id, value);
    }
    *out += '}';
  }
}

}  // namespace baleen::router::openai
