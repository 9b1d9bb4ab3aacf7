// Structured output: grammars that a reply must keep to, compiled for a model's vocabulary, and for
// each sequence the tokens that may come next. The work is done by the llguidance crate, behind the
// C ABI in text/crate.
//
// The router compiles a grammar to refuse a wrong one early; the worker makes masks with it. What
// may come next is a function of the vocabulary, the grammar and the tokens so far.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/contract/limits.h"

struct baleen_grammar;
struct baleen_grammar_matcher;
struct baleen_grammar_vocabulary;
struct baleen_text_tokenizer;

namespace baleen::text {

// Of the model, not of its tokenizer.
struct VocabularyOptions {
  // Logits of the model; 0: as many as the tokenizer has ids. Ids that no token has are padding and
  // never allowed.
  std::uint32_t size = 0;
  // Any of them ends a reply whose grammar may end; the tokenizer's own if there are none.
  std::vector<std::int32_t> eos_token_ids;
};

// The tokens of a model, as a tree of bytes. Making one of 129,280 tokens takes most of a second
// and about 20 MB. Immutable; any number of threads may use one.
class Vocabulary {
 public:
  // From tokenizer.json of `model_dir`. NOT_FOUND without one; FAILED_PRECONDITION if it is damaged
  // or has ids beyond `options.size`.
  static absl::StatusOr<std::shared_ptr<const Vocabulary>> Load(const std::string& model_dir,
                                                                const VocabularyOptions& options);
  // From a tokenizer that is loaded (router/text/tokenizer.h: handle()).
  static absl::StatusOr<std::shared_ptr<const Vocabulary>> Create(
      const baleen_text_tokenizer& tokenizer, const VocabularyOptions& options);

  std::uint32_t size() const { return size_; }
  // Of a mask: one bit a token id, id i is bit i % 32 of word i / 32.
  std::size_t mask_words() const { return (std::size_t{size_} + 31) / 32; }

  // For Grammar.
  const baleen_grammar_vocabulary* handle() const { return handle_.get(); }

 private:
  struct HandleDeleter {
    void operator()(baleen_grammar_vocabulary* handle) const;
  };
  using Handle = std::unique_ptr<baleen_grammar_vocabulary, HandleDeleter>;
  Vocabulary(Handle handle, std::uint32_t size) : handle_(std::move(handle)), size_(size) {}

  Handle handle_;
  std::uint32_t size_ = 0;
};

enum class GrammarKind : std::uint8_t {
  kJsonSchema,  // JSON text that the schema describes (docs/structured-output.md: which keywords)
  kRegex,       // text that the expression matches as a whole
  kLark,        // text of a context-free grammar in llguidance's dialect of Lark
};

struct GrammarSource {
  GrammarKind kind = GrammarKind::kJsonSchema;
  std::string text;

  friend bool operator==(const GrammarSource&, const GrammarSource&) = default;
};

// Any JSON object.
GrammarSource JsonObjectGrammar();

// What is more is refused. All but one count work or size, not time, so that what one process takes
// another does not refuse.
struct GrammarLimits {
  std::size_t source_bytes_max = contract::kGrammarBytesMax;
  // Of a schema: objects and arrays inside each other.
  std::uint32_t schema_depth_max = 64;
  // A net below the others, which keep compiling under a second on a core of its own. What takes
  // longer can not be stopped: four such at a time, then nothing is compiled until one has ended.
  std::uint32_t compile_ms_max = 2000;
  // Symbols in all productions. A schema of 256 KiB has some 100,000.
  std::uint32_t symbols_max = 200'000;
  // Nodes of regular expressions when a grammar is compiled.
  std::uint64_t compile_fuel_max = 200'000;
  // Of one mask: nodes of regular expressions, and items of the parser. Both together take some 20
  // ms at most.
  std::uint64_t mask_fuel_max = 50'000;
  std::uint32_t mask_items_max = 20'000;
  // Of a sequence: 1 to 2 KB each.
  std::uint32_t lexer_states_max = 50'000;
};

// A compiled grammar. Immutable; any number of threads may use one.
class Grammar {
 public:
  // INVALID_ARGUMENT if the source is no grammar of its kind, is not supported, or exceeds a limit,
  // and says which; never more of the source than the name that is at fault.
  static absl::StatusOr<std::shared_ptr<const Grammar>> Compile(
      std::shared_ptr<const Vocabulary> vocabulary, const GrammarSource& source,
      const GrammarLimits& limits = {});

  const Vocabulary& vocabulary() const { return *vocabulary_; }

  // For Matcher.
  const baleen_grammar* handle() const { return handle_.get(); }

 private:
  struct HandleDeleter {
    void operator()(baleen_grammar* handle) const;
  };
  using Handle = std::unique_ptr<baleen_grammar, HandleDeleter>;
  Grammar(Handle handle, std::shared_ptr<const Vocabulary> vocabulary)
      : handle_(std::move(handle)), vocabulary_(std::move(vocabulary)) {}

  Handle handle_;
  std::shared_ptr<const Vocabulary> vocabulary_;
};

// Follows one reply through a grammar. One thread at a time.
class Matcher {
 public:
  static absl::StatusOr<std::unique_ptr<Matcher>> Create(std::shared_ptr<const Grammar> grammar);

  // Sets in `out`, of vocabulary().mask_words() words, the bits of the tokens that may come next.
  // End-of-sequence tokens are among them exactly when the grammar may end here, and alone once
  // nothing else can follow. RESOURCE_EXHAUSTED if it is more work than a limit; any error is for
  // good.
  absl::Status Mask(std::span<std::uint32_t> out);

  // INVALID_ARGUMENT if `token` may not come next. After an end-of-sequence token only such tokens
  // come.
  absl::Status Consume(std::int32_t token);

  // Nothing but end-of-sequence tokens can follow.
  bool is_stopped() const;

  const Vocabulary& vocabulary() const { return grammar_->vocabulary(); }

 private:
  struct HandleDeleter {
    void operator()(baleen_grammar_matcher* handle) const;
  };
  using Handle = std::unique_ptr<baleen_grammar_matcher, HandleDeleter>;
  Matcher(Handle handle, std::shared_ptr<const Grammar> grammar)
      : handle_(std::move(handle)), grammar_(std::move(grammar)) {}

  Handle handle_;
  std::shared_ptr<const Grammar> grammar_;
};

}  // namespace baleen::text
