// From a client's message to a request whose every field is within its limits. The one place where
// the ranges of inference.proto are checked, whatever API a message came by; what depends on the
// model comes later (prompt.h).
//
// Every error is a contract::Reason that names the field, its value and the limit; never prompt
// text.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "proto/baleen/v1/inference.pb.h"
#include "router/server/request/request.h"

namespace baleen::router {

absl::StatusOr<GenerationRequest> ReadChat(v1::ChatRequest message);
absl::StatusOr<GenerationRequest> ReadGenerate(v1::GenerateRequest message);
absl::StatusOr<TokenizationRequest> ReadTokenize(v1::TokenizeRequest message);

// Of one serialized message each. Nothing is allocated that is not in proportion to a list that was
// counted first.
absl::StatusOr<GenerationRequest> ParseChat(std::string_view bytes);
absl::StatusOr<GenerationRequest> ParseGenerate(std::string_view bytes);
absl::StatusOr<TokenizationRequest> ParseTokenize(std::string_view bytes);

}  // namespace baleen::router
