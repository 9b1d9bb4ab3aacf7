// Generation in this process, with the engine and the model of a worker: the tokens and
// log-probabilities are those of any cluster.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "proto/baleen/v1/inference.pb.h"

namespace baleen::cli {

// Loads the model in `directory` and generates as Inference.Generate would: the same checks,
// defaults and chunks. A prompt of token ids needs no tokenizer in the directory; without one, text
// stays empty. `model` of the request is not looked at.
absl::Status GenerateLocally(const std::string& directory, const v1::GenerateRequest& request,
                             const std::function<void(const v1::GenerateChunk&)>& on_chunk);

}  // namespace baleen::cli
