// What a request's format and tools make of its reply: a grammar, checked before any worker sees
// it.
#pragma once

#include <memory>
#include <mutex>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "router/dispatch/messages.h"
#include "router/server/request/request.h"
#include "router/text/chat_template.h"
#include "router/text/tokenizer.h"
#include "text/grammar/grammar_cache.h"

namespace baleen::router {

// The grammars of one model. Thread-safe; for threads that may take time.
class ModelGrammars {
 public:
  explicit ModelGrammars(std::shared_ptr<const Tokenizer> tokenizer)
      : tokenizer_(std::move(tokenizer)) {}

  // OK if `grammar` can be compiled for the model's vocabulary; else kInvalidRequest says why not.
  // The first call takes most of a second with a large vocabulary.
  absl::Status Check(const GrammarSpec& grammar) const;

 private:
  const std::shared_ptr<const Tokenizer> tokenizer_;
  mutable std::once_flag once_;
  // Set once:
  mutable absl::Status vocabulary_status_;
  mutable std::unique_ptr<text::GrammarCache> cache_;
};

struct GrammarWish {
  const std::optional<FormatSpec>& format;
  const ToolUse* tools = nullptr;  // null: none
  bool opens_reasoning = false;    // the reply begins inside the reasoning
};

// The grammar of a reply; nullopt: any text. kInvalidRequest when the model cannot follow it.
// `chat_template` is not null when there are tools.
absl::StatusOr<std::optional<GrammarSpec>> GrammarOf(const GrammarWish& wish,
                                                     const Tokenizer& tokenizer,
                                                     const ChatTemplate* chat_template);

}  // namespace baleen::router
