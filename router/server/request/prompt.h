// From a request's prompt to token ids that fit its model.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "router/dispatch/messages.h"
#include "router/policy/cluster_view.h"
#include "router/server/request/models.h"
#include "router/server/request/request.h"

namespace baleen::router {

// What has to be made of a request before workers can begin.
struct PromptWish {
  PromptSource source;
  std::optional<FormatSpec> format;
  bool echo = false;
  // Of the caller's tenant, and of the workers' checkpoint: keys of the block hashes. Empty: no
  // hashes are made.
  std::string tenant_salt;
  std::string model_digest;
};

struct Prompt {
  TokenIds ids;
  bool opens_reasoning = false;                     // the reply begins inside the reasoning
  std::string text;                                 // with `echo`
  std::shared_ptr<const GrammarSpec> grammar;       // null: any text
  std::shared_ptr<const BlockHashes> block_hashes;  // null: none
};

// Renders, tokenizes, hashes, and checks the grammar; time in proportion to the text, so not for a
// thread that serves streams. `now` is the date that templates may show. kInvalidRequest, also when
// the model has not what the source needs, or kInternal when template or tokenizer fail.
absl::StatusOr<Prompt> MakePrompt(const ModelText& model, PromptWish wish, absl::Time now);

// OK when the request's numbers fit the model: prompt_too_long, or invalid_request for ids and
// top_k beyond the vocabulary.
absl::Status CheckFit(const GenerationRequest& request, const TokenIds& ids,
                      const ModelIdentity& model);

// Tokens that the reply may have: as asked, or the default. Precondition: CheckFit.
std::uint32_t TokensMax(const std::optional<std::uint32_t>& asked, std::size_t prompt_tokens,
                        std::uint32_t context_tokens);

// The identity that the attached workers of `model` share; kNoWorker when there are none.
absl::StatusOr<ModelIdentity> IdentityOf(const ClusterView& view, const std::string& model);

}  // namespace baleen::router
