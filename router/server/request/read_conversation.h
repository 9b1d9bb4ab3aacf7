// The fields of a request that say what is asked: messages, tools, formats.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/baleen/v1/inference.pb.h"
#include "router/server/request/request.h"

namespace baleen::router {

absl::StatusOr<std::vector<ChatTurn>> ReadMessages(
    google::protobuf::RepeatedPtrField<v1::Message>& messages);

// The names are checked, not the schemas: the grammar compiler reads those.
absl::StatusOr<std::vector<ToolSpec>> ReadTools(
    google::protobuf::RepeatedPtrField<v1::Tool>& tools);

absl::StatusOr<ToolUse> ReadToolUse(v1::ChatRequest& message);

// nullopt: any text.
absl::StatusOr<std::optional<FormatSpec>> ReadFormat(v1::Format& format);

}  // namespace baleen::router
