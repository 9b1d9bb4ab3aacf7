// One Tokenize request of a client, whatever API it came by. Belongs to the thread of its shard.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "router/admission/admission.h"
#include "router/server/generation/generation_shard.h"
#include "router/server/request/request.h"

namespace baleen::router {

class Tokenization final : public PromptTaker {
 public:
  // `retry_after`: when a refused client should try again; zero: no hint.
  using Done = std::function<void(const absl::StatusOr<TokenIds>& ids, absl::Duration retry_after)>;

  // `bytes`: of the message, as received. `done` is called once, from within at the earliest, and
  // not once this is gone.
  Tokenization(GenerationShard& shard, absl::StatusOr<TokenizationRequest> request,
               std::size_t bytes, Done done);
  Tokenization(const Tokenization&) = delete;
  Tokenization& operator=(const Tokenization&) = delete;
  ~Tokenization();

  void OnPrompt(absl::StatusOr<Prompt> prompt) override;

 private:
  absl::Status Start(TokenizationRequest request, std::size_t bytes);
  void End(const absl::StatusOr<TokenIds>& ids);

  GenerationShard& shard_;
  const Done done_;
  const std::uint64_t number_;
  Admission::Ticket ticket_;  // kept until the edge is done, as Generation's
  std::shared_ptr<std::atomic<bool>> gone_;
};

}  // namespace baleen::router
