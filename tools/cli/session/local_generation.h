// Generation in this process, with the engine and the model of a worker: the tokens and
// log-probabilities are those of any cluster.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/baleen/v1/inference.pb.h"

namespace baleen::cli {

struct LocalGeneration {
  std::string directory;        // of the model
  v1::GenerateRequest request;  // `model` is empty, or the directory's last component
  absl::Duration within = absl::InfiniteDuration();  // for the reply, once the model is loaded
};

// Loads the model and generates as Inference.Generate would: the same checks, defaults, chunks and
// errors. A prompt of token ids needs no tokenizer in the directory; without one, text stays empty.
absl::Status GenerateLocally(const LocalGeneration& generation,
                             const std::function<void(const v1::GenerateChunk&)>& on_chunk);

}  // namespace baleen::cli
