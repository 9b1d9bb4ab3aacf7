// The models that this router serves: tokenizer and chat template, loaded once, shared by all
// threads.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "router/cluster/registry.h"
#include "router/server/request/grammars.h"
#include "router/text/chat_template.h"
#include "router/text/encoding/prompt_cache.h"
#include "router/text/tokenizer.h"

namespace baleen::router {

// Of the prompts of one model: a hundred conversations of full length.
inline constexpr std::size_t kPromptCacheBytesMax = std::size_t{64} << 20;

struct ModelText {
  std::string name;
  // Null without a tokenizer.json: the model takes and gives token ids only.
  std::shared_ptr<const Tokenizer> tokenizer;
  // Null without a template, as for base models: it continues texts, but takes no conversations.
  std::shared_ptr<const ChatTemplate> chat_template;
  // Null without a tokenizer, as is the cache.
  std::shared_ptr<const ModelGrammars> grammars;
  std::shared_ptr<PromptCache> prompt_cache;
};

// Immutable once loaded.
class Models {
 public:
  // A model's name is the last component of its directory, as for workers. The error names the
  // directory and what is wrong with it.
  static absl::StatusOr<Models> Load(const std::vector<std::string>& directories);

  // "" is the only model. kModelNotFound, or kInvalidRequest for "" when there are several.
  absl::StatusOr<const ModelText*> Find(std::string_view name) const;

  std::vector<ServedModel> Served() const;

 private:
  std::vector<std::unique_ptr<const ModelText>> models_;
};

}  // namespace baleen::router
