// What bodies of chat and of completions have in common.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "proto/baleen/v1/inference.pb.h"
#include "router/server/openai/json/fields.h"
#include "router/server/openai/request/request.h"

namespace baleen::router::openai {

// The parts of a message that both have, borrowed, and the rest by value.
struct CommonTarget {
  v1::SamplingParams& sampling;
  v1::StopParams& stop;
  ReplyForm& form;
  std::string model;
  std::uint32_t choices = 0;
  std::optional<std::uint32_t> priority;
  std::optional<v1::Format> format;
  bool has_stream_options = false;
};

std::span<const json::FieldRow<CommonTarget>> CommonFields();

// After all fields: what they say together. Gives the values to `message`.
template <typename Message>
absl::Status FinishCommon(CommonTarget& target, Message& message) {
  if (target.has_stream_options && !target.form.stream) {
    return json::Invalid(json::Path(json::Path(), "stream_options"), "only with stream: true");
  }
  message.set_model(std::move(target.model));
  message.set_choices(target.choices);
  if (target.priority) message.set_priority(*target.priority);
  if (target.format) *message.mutable_format() = *std::move(target.format);
  // OpenAI's default. That of the messages is 0, greedy.
  if (!target.sampling.has_temperature()) target.sampling.set_temperature(1.0f);
  return absl::OkStatus();
}

// A field that must not be there: other servers and older clients know it.
absl::Status RefuseWith(const json::Path& path, std::string_view hint);

// [1, 2, 3], at most `count_max`.
absl::Status ReadTokenIds(const json::Value& value, const json::Path& path, std::size_t count_max,
                          google::protobuf::RepeatedField<std::int32_t>& ids);

// Of chat and of /tokenize.
absl::Status ReadMessages(const json::Value& value, const json::Path& path,
                          google::protobuf::RepeatedPtrField<v1::Message>& messages);
absl::Status ReadTools(const json::Value& value, const json::Path& path,
                       google::protobuf::RepeatedPtrField<v1::Tool>& tools);

}  // namespace baleen::router::openai
