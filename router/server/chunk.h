// Parts of a reply as messages of baleen.v1.
#pragma once

#include <string>

#include "proto/baleen/v1/inference.pb.h"
#include "router/server/generation/generation.h"
#include "router/server/generation/reply_part.h"

namespace baleen::router {

// A serialized ChatChunk, or GenerateChunk. At most contract::kMessageBytesMax.
std::string SerializeChunk(bool chat, const Generation& generation, ReplyPart part);

// `model` gives tokens their bytes.
v1::ChatChunk ToChatChunk(const std::string& request_id, const ModelText& model, ReplyPart part);
v1::GenerateChunk ToGenerateChunk(const std::string& request_id, const ModelText& model,
                                  ReplyPart part);

}  // namespace baleen::router
