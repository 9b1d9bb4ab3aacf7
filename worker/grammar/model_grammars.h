// Grammars for the vocabulary of the model that a rank serves.
#pragma once

#include <cstddef>
#include <latch>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "text/grammar/grammar.h"
#include "text/grammar/grammar_cache.h"
#include "worker/grammar/grammar_compiler.h"

namespace baleen::worker {

struct ModelGrammarsOptions {
  std::string model_directory;
  text::VocabularyOptions vocabulary;  // with the model's size
  text::GrammarLimits limits;
  text::GrammarCacheLimits cache;
};

class ModelGrammars final : public GrammarCompiler {
 public:
  // Reads tokenizer.json in the background, most of a second for 129,280 tokens; grammars that come
  // before wait for it. If that fails, for one because there is none, each is refused for it.
  explicit ModelGrammars(ModelGrammarsOptions options);
  ~ModelGrammars() override;
  ModelGrammars(const ModelGrammars&) = delete;
  ModelGrammars& operator=(const ModelGrammars&) = delete;

  absl::StatusOr<std::unique_ptr<TokenRules>> Compile(const text::GrammarSource& source) override;
  std::size_t mask_words() const override;

 private:
  using Cache = std::unique_ptr<text::GrammarCache>;
  void Load();

  const ModelGrammarsOptions options_;
  absl::StatusOr<Cache> cache_;  // written by loader_ before loaded_
  std::latch loaded_{1};
  std::jthread loader_;
};

}  // namespace baleen::worker
