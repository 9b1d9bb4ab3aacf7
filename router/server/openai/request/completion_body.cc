// Bodies of POST /v1/completions and POST /tokenize.
#include <fmt/format.h>

#include <utility>

#include "observability/base/status_macros.h"
#include "proto/contract/limits.h"
#include "router/server/openai/request/common_fields.h"

namespace baleen::router::openai {
namespace {

using json::FieldRow;
using json::Invalid;
using json::Kind;
using json::Path;
using json::ReadBoolean;
using json::ReadString;
using json::ReadUint32;
using json::Value;
using json::WrongKind;

struct CompletionTarget : CommonTarget {
  v1::GenerateRequest& message;
  std::optional<std::uint32_t> logprobs;
  std::optional<std::uint32_t> prompt_logprobs;
};

absl::Status SetPrompt(const Value& value, const Path& path, CompletionTarget& target) {
  constexpr std::string_view kOneOnly =
      "one prompt a request: send several at the same time instead";
  if (value.is(Kind::kString)) {
    target.message.set_text(std::string(value.text()));
    return absl::OkStatus();
  }
  if (!value.is(Kind::kArray)) {
    return WrongKind(path, value, "a string or an array of token ids");
  }
  const auto first = value.begin();
  const bool ids = first == value.end() || (*first).is(Kind::kNumber);
  if (ids) {
    return ReadTokenIds(value, path, contract::kContextTokensMax,
                        *target.message.mutable_token_ids()->mutable_ids());
  }
  if (value.size() > 1) return Invalid(path, kOneOnly);
  const Path at(path, std::size_t{0});
  const bool one = (*first).is(Kind::kString) ||
                   ((*first).is(Kind::kArray) && (*first).begin() != (*first).end() &&
                    (*(*first).begin()).is(Kind::kNumber));
  if (!one) return WrongKind(at, *first, "a string or an array of token ids");
  return SetPrompt(*first, at, target);
}

constexpr FieldRow<CompletionTarget> kCompletionFields[] = {
    {"prompt", SetPrompt},
    {"echo",
     [](const Value& value, const Path& path, CompletionTarget& target) {
       BALEEN_ASSIGN_OR_RETURN(const bool echo, ReadBoolean(value, path));
       target.message.set_echo(echo);
       return absl::OkStatus();
     }},
    {"logprobs",
     [](const Value& value, const Path& path, CompletionTarget& target) {
       BALEEN_ASSIGN_OR_RETURN(target.logprobs, ReadUint32(value, path));
       return absl::OkStatus();
     }},
    {"prompt_logprobs",
     [](const Value& value, const Path& path, CompletionTarget& target) {
       BALEEN_ASSIGN_OR_RETURN(target.prompt_logprobs, ReadUint32(value, path));
       return absl::OkStatus();
     }},
    {"best_of",
     [](const Value& value, const Path& path, CompletionTarget&) {
       BALEEN_ASSIGN_OR_RETURN(const std::uint32_t best_of, ReadUint32(value, path));
       return best_of == 1 ? absl::OkStatus() : Invalid(path, "only 1: ask for n and choose");
     }},
    {"suffix",
     [](const Value&, const Path& path, CompletionTarget&) {
       return RefuseWith(path, "no text is written in front of another here");
     }},
};

absl::StatusOr<CompletionBody> Finish(CompletionTarget& target, CompletionBody& read) {
  // OpenAI's default for completions.
  constexpr std::uint32_t kMaxTokensDefault = 16;
  const Path top;
  if (!target.stop.has_max_tokens()) target.stop.set_max_tokens(kMaxTokensDefault);
  v1::GenerateRequest& message = read.message;
  if (message.prompt_case() == v1::GenerateRequest::PROMPT_NOT_SET) {
    return Invalid(Path(top, "prompt"), "it is missing");
  }
  if (target.logprobs) message.set_logprobs(*target.logprobs);
  if (target.prompt_logprobs) {
    read.form.prompt_logprobs_apart = true;
    message.set_prompt_logprobs(*target.prompt_logprobs);
  }
  if (message.echo() && target.logprobs) {
    if (target.prompt_logprobs) {
      return Invalid(Path(top, "prompt_logprobs"), "echo with logprobs has them already");
    }
    message.set_prompt_logprobs(*target.logprobs);
  }
  BALEEN_RETURN_IF_ERROR(FinishCommon(target, message));
  return std::move(read);
}

constexpr FieldRow<v1::TokenizeRequest> kTokenizeFields[] = {
    {"model",
     [](const Value& value, const Path& path, v1::TokenizeRequest& message) {
       BALEEN_ASSIGN_OR_RETURN(*message.mutable_model(), ReadString(value, path));
       return absl::OkStatus();
     }},
    {"prompt",
     [](const Value& value, const Path& path, v1::TokenizeRequest& message) {
       if (message.has_chat()) return Invalid(path, "either prompt or messages");
       BALEEN_ASSIGN_OR_RETURN(std::string text, ReadString(value, path));
       message.set_text(std::move(text));
       return absl::OkStatus();
     }},
    {"messages",
     [](const Value& value, const Path& path, v1::TokenizeRequest& message) {
       if (message.input_case() == v1::TokenizeRequest::kText) {
         return Invalid(path, "either prompt or messages");
       }
       return ReadMessages(value, path, *message.mutable_chat()->mutable_messages());
     }},
    {"tools",
     [](const Value& value, const Path& path, v1::TokenizeRequest& message) {
       return ReadTools(value, path, *message.mutable_tools());
     }},
};

}  // namespace

absl::StatusOr<CompletionBody> ReadCompletionBody(std::string_view body) {
  BALEEN_ASSIGN_OR_RETURN(const json::Document document, json::Document::Parse(body));
  CompletionBody read;
  CompletionTarget target{{.sampling = *read.message.mutable_sampling(),
                           .stop = *read.message.mutable_stop(),
                           .form = read.form},
                          read.message};
  BALEEN_RETURN_IF_ERROR(ReadObject(document.root(), Path(),
                                    std::span<const FieldRow<CompletionTarget>>(kCompletionFields),
                                    CommonFields(), target));
  return Finish(target, read);
}

absl::StatusOr<v1::TokenizeRequest> ReadTokenizeBody(std::string_view body) {
  BALEEN_ASSIGN_OR_RETURN(const json::Document document, json::Document::Parse(body));
  v1::TokenizeRequest message;
  const Path top;
  BALEEN_RETURN_IF_ERROR(ReadObject(document.root(), top, kTokenizeFields, message));
  if (message.input_case() == v1::TokenizeRequest::INPUT_NOT_SET) {
    return Invalid(Path(top, "prompt"), "it is missing");
  }
  return message;
}

}  // namespace baleen::router::openai
