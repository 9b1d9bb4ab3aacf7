// C ABI of the Rust text crate: Hugging Face tokenizers and chat templates. Only router/text
// includes this file.
//
// Strings are UTF-8 with a length, without a terminating NUL; a length of 0 allows a null pointer.
//
// Ownership: what a *_load function or a baleen_text_prompt hands out belongs to the caller until
// it is given to the matching *_free function; inputs are borrowed for the call only.
//
// Errors: a function that can fail returns a baleen_text_code, and fills `error` unless that is
// BALEEN_TEXT_OK. Outputs are then left as they were. No panic leaves this library.
//
// Threads: loaded objects never change; any number of threads may use one at the same time.
//
// Limits: baleen_text_limits; besides, 100,000 white space characters in a row, token ids below
// 1,048,576, and 1,000,000 template instructions. A template can still build large values within
// those: load templates from model directories only, never from a request.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum baleen_text_code {
  BALEEN_TEXT_OK = 0,
  BALEEN_TEXT_INVALID_INPUT = 1,  // the request: too long, not UTF-8, refused by the template
  BALEEN_TEXT_INVALID_MODEL = 2,  // a file of the model directory
  BALEEN_TEXT_INTERNAL = 3,       // a bug
  BALEEN_TEXT_NOT_FOUND = 4,      // the model directory does not have it
};

#define BALEEN_TEXT_MESSAGE_BYTES 512

// One line of text; cut, at a character, to fit.
typedef struct baleen_text_error {
  int32_t code;
  uint32_t message_size;
  char message[BALEEN_TEXT_MESSAGE_BYTES];
} baleen_text_error;

typedef struct baleen_text_span {
  const char* data;
  size_t size;
} baleen_text_span;

// What is larger is refused before any other work is done on it.
typedef struct baleen_text_limits {
  size_t tokenizer_json_bytes_max;
  size_t config_json_bytes_max;  // also of a chat template file
  size_t text_bytes_max;         // of one text, of all messages together, and of a rendered prompt
  size_t messages_max;
} baleen_text_limits;

typedef struct baleen_text_tokenizer baleen_text_tokenizer;
typedef struct baleen_text_template baleen_text_template;

// tokenizer_json: the file of that name. config_json: tokenizer_config.json, or empty if there is
// none.
int32_t baleen_text_tokenizer_load(const baleen_text_limits* limits,
                                   baleen_text_span tokenizer_json, baleen_text_span config_json,
                                   baleen_text_tokenizer** tokenizer, baleen_text_error* error);
void baleen_text_tokenizer_free(baleen_text_tokenizer* tokenizer);

enum baleen_text_token_flag {
  BALEEN_TEXT_TOKEN_EXISTS = 1,
  BALEEN_TEXT_TOKEN_SPECIAL = 2,  // left out of decoded text on request
  BALEEN_TEXT_TOKEN_CONTROL = 4,  // steers the model: special, or of the form <...>
};

// Borrowed from the tokenizer, valid as long as it is. Token ids are below id_end. The bytes of
// token `id` are bytes[offsets[id] .. offsets[id + 1]); those of several tokens in a row make up
// the text, which need not break into characters where tokens end. bos_id and eos_id are -1 if the
// model has none.
typedef struct baleen_text_vocabulary {
  uint32_t id_end;
  const char* bytes;
  const uint32_t* offsets;  // id_end + 1 of them
  const uint8_t* flags;     // id_end of them, baleen_text_token_flag or-ed
  int32_t bos_id;
  int32_t eos_id;
  uint8_t adds_bos;              // 1: a prompt not made by a chat template starts with bos_id
  uint8_t strips_leading_space;  // 1: one space at the start of decoded text is dropped
  uint8_t encodes_segments;      // 1: texts can be encoded part by part
} baleen_text_vocabulary;

void baleen_text_tokenizer_vocabulary(const baleen_text_tokenizer* tokenizer,
                                      baleen_text_vocabulary* vocabulary);

// The id of the token with this text (of a byte-level tokenizer: its spelling in tokenizer.json),
// or -1.
int32_t baleen_text_token_id(const baleen_text_tokenizer* tokenizer, baleen_text_span token);

// A part of a text: the control token control_id, or, if that is -1, what is between two.
typedef struct baleen_text_segment {
  size_t begin;
  size_t end;
  int32_t control_id;
} baleen_text_segment;

// What encode, segments, encode_piece and render give; what they do not give is null. Goes to
// baleen_text_prompt_free once.
typedef struct baleen_text_prompt {
  char* text;
  size_t text_size;
  int32_t* token_ids;
  size_t token_ids_size;
  baleen_text_segment* segments;
  size_t segments_size;
} baleen_text_prompt;

void baleen_text_prompt_free(baleen_text_prompt* prompt);

// Ids of `text`, nothing added. Control tokens spelled out in it become tokens if control_as_tokens
// is not 0, and stay ordinary text if it is 0.
int32_t baleen_text_encode(const baleen_text_tokenizer* tokenizer, baleen_text_span text,
                           uint8_t control_as_tokens, baleen_text_prompt* prompt,
                           baleen_text_error* error);

// Only if encodes_segments, the same in parts: `text` is checked and cut into segments; each is a
// token or has the ids of its pieces, which any threads may encode. A piece ends where piece_end
// says, or with its segment.
int32_t baleen_text_segments(const baleen_text_tokenizer* tokenizer, baleen_text_span text,
                             uint8_t control_as_tokens, baleen_text_prompt* prompt,
                             baleen_text_error* error);
int32_t baleen_text_encode_piece(const baleen_text_tokenizer* tokenizer, baleen_text_span piece,
                                 baleen_text_prompt* prompt, baleen_text_error* error);
// Bytes of a piece at the start of `text`: at least bytes_min, or all.
size_t baleen_text_piece_end(const baleen_text_tokenizer* tokenizer, baleen_text_span text,
                             size_t bytes_min);

// template_file: chat_template.jinja, or empty if there is none; then chat_template of config_json;
// then DeepSeek-R1's format. The template keeps what it needs of the tokenizer alive.
int32_t baleen_text_template_load(const baleen_text_tokenizer* tokenizer,
                                  baleen_text_span config_json, baleen_text_span template_file,
                                  baleen_text_template** chat_template, baleen_text_error* error);
void baleen_text_template_free(baleen_text_template* chat_template);

typedef struct baleen_text_template_properties {
  uint8_t fences_arguments;  // 1: calls as R1 and V3 write them; 0: as V3.1 does
} baleen_text_template_properties;

void baleen_text_template_properties_of(const baleen_text_template* chat_template,
                                        baleen_text_template_properties* properties);

typedef struct baleen_text_tool_call {
  baleen_text_span id;
  baleen_text_span name;
  baleen_text_span arguments;  // a JSON object, or empty
} baleen_text_tool_call;

typedef struct baleen_text_message {
  baleen_text_span role;  // "system", "user", "assistant", "tool"
  baleen_text_span content;
  const baleen_text_tool_call* tool_calls;
  size_t tool_calls_size;
  baleen_text_span tool_call_id;
} baleen_text_message;

typedef struct baleen_text_tool {
  baleen_text_span name;
  baleen_text_span description;
  baleen_text_span parameters;  // a JSON object, or empty
} baleen_text_tool;

typedef struct baleen_text_render_options {
  uint8_t add_generation_prompt;  // 1: end with the start of the assistant's turn
  int64_t now_unix_seconds;       // for templates that show the date, in UTC
  const baleen_text_tool* tools;
  size_t tools_size;
} baleen_text_render_options;

// The prompt of a conversation: its text, and token ids or, if encodes_segments, segments. Control
// tokens spelled out in messages, calls and tools stay ordinary text, except <think> and </think>
// in the content of the assistant. JSON may be nested 48 levels deep.
int32_t baleen_text_render(const baleen_text_template* chat_template,
                           const baleen_text_message* messages, size_t messages_size,
                           const baleen_text_render_options* options, baleen_text_prompt* prompt,
                           baleen_text_error* error);

#ifdef __cplusplus
}
#endif
