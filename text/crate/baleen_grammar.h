// C ABI of the Rust text crate: structured output with llguidance. Only text/grammar includes this
// file.
//
// Strings, ownership, errors and panics: as in baleen_text.h. What a *_create or *_compile function
// hands out may outlive what it was made from.
//
// Threads: vocabularies and grammars never change, any number of threads may use one; a matcher
// belongs to one thread at a time.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "text/crate/baleen_text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct baleen_grammar_vocabulary baleen_grammar_vocabulary;
typedef struct baleen_grammar baleen_grammar;
typedef struct baleen_grammar_matcher baleen_grammar_matcher;

// Of `tokens`, borrowed for the call, only id_end, bytes, offsets and flags count. size: logits of
// the model, 0 = id_end. eos_ids: at least one.
int32_t baleen_grammar_vocabulary_create(const baleen_text_vocabulary* tokens, uint32_t size,
                                         const int32_t* eos_ids, size_t eos_ids_size,
                                         baleen_grammar_vocabulary** vocabulary,
                                         baleen_text_error* error);
void baleen_grammar_vocabulary_free(baleen_grammar_vocabulary* vocabulary);
uint32_t baleen_grammar_vocabulary_size(const baleen_grammar_vocabulary* vocabulary);

enum baleen_grammar_kind {
  BALEEN_GRAMMAR_JSON_SCHEMA = 0,
  BALEEN_GRAMMAR_REGEX = 1,
  BALEEN_GRAMMAR_LARK = 2,
};

// text/grammar/grammar.h says what each means.
typedef struct baleen_grammar_limits {
  size_t source_bytes_max;
  uint32_t schema_depth_max;
  uint32_t compile_ms_max;
  uint32_t symbols_max;
  uint64_t compile_fuel_max;
  uint64_t mask_fuel_max;
  uint32_t mask_items_max;
  uint32_t lexer_states_max;
} baleen_grammar_limits;

// BALEEN_TEXT_INVALID_INPUT if the source is no such grammar or exceeds a limit.
int32_t baleen_grammar_compile(const baleen_grammar_vocabulary* vocabulary, int32_t kind,
                               baleen_text_span source, const baleen_grammar_limits* limits,
                               baleen_grammar** grammar, baleen_text_error* error);
void baleen_grammar_free(baleen_grammar* grammar);

int32_t baleen_grammar_matcher_create(const baleen_grammar* grammar,
                                      baleen_grammar_matcher** matcher, baleen_text_error* error);
void baleen_grammar_matcher_free(baleen_grammar_matcher* matcher);

// words_size: (size of the vocabulary + 31) / 32. BALEEN_TEXT_INVALID_INPUT if a limit is exceeded
// or nothing can follow, though the grammar may not end here.
int32_t baleen_grammar_matcher_mask(baleen_grammar_matcher* matcher, uint32_t* words,
                                    size_t words_size, baleen_text_error* error);
// BALEEN_TEXT_INVALID_INPUT if the token may not follow.
int32_t baleen_grammar_matcher_consume(baleen_grammar_matcher* matcher, int32_t token,
                                       baleen_text_error* error);
uint8_t baleen_grammar_matcher_is_stopped(const baleen_grammar_matcher* matcher);

#ifdef __cplusplus
}
#endif
