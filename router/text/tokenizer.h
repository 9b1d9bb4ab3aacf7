// Text to token ids and back, exactly as the model's own tokenizer.json says. The work is done by
// Hugging Face's Rust crate, behind the C ABI in text/crate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/contract/limits.h"
#include "router/text/detokenizer.h"
#include "router/text/encoding/parts.h"
#include "router/text/reply/tool_call_parser.h"

struct baleen_text_tokenizer;

namespace baleen::router {

class AbiPrompt;

// Files larger than this are refused before they are read. DeepSeek-V3's tokenizer.json has 7.8 MB,
// the largest public ones about 35; a configuration with a long chat template some 100 kB.
inline constexpr std::size_t kTokenizerFileBytesMax = std::size_t{64} << 20;
inline constexpr std::size_t kTokenizerConfigBytesMax = std::size_t{4} << 20;

struct TextLimits {
  // Of one text, of all messages of a conversation, and of the prompt made from them.
  std::size_t text_bytes_max = contract::kPromptTextBytesMax;
  std::size_t messages_max = contract::kMessagesMax;
};

// What becomes of control tokens (<｜User｜>, </think>, ...) that are spelled out in a text.
enum class ControlText : std::uint8_t {
  kAsText,    // characters like others: a text from outside can not steer the model
  kAsTokens,  // one token each
};

// Immutable once loaded; any number of threads may use one.
class Tokenizer {
 public:
  // Reads tokenizer.json, and tokenizer_config.json if there is one. NOT_FOUND without the former;
  // FAILED_PRECONDITION if either is damaged, too large, or asks for what is not supported.
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Load(const std::string& model_dir,
                                                               const TextLimits& limits = {});

  // Ids of `text`, nothing added. INVALID_ARGUMENT if it is too long (TextLimits, or 100,000 white
  // space characters in a row) or not UTF-8; for kAsText with a tokenizer of another kind than
  // DeepSeek's also if it has all of U+FDD0 to U+FDEF.
  absl::StatusOr<std::vector<std::int32_t>> Encode(std::string_view text, ControlText control,
                                                   const EncodeHelp& help = {}) const;

  // Ids of a prompt that is written as the model is to see it: control tokens recognised, after
  // bos_id() if the model's prompts begin with it. INVALID_ARGUMENT as Encode, or if it is empty.
  absl::StatusOr<std::vector<std::int32_t>> EncodePrompt(std::string_view text,
                                                         const EncodeHelp& help = {}) const;

  // INVALID_ARGUMENT, naming the first id that no token has and its place, or if there are none.
  absl::Status CheckIds(std::span<const std::int32_t> ids) const;

  // The text of `ids`; special tokens left out.
  std::string Decode(std::span<const std::int32_t> ids) const;

  // Id of the token spelled `token` in tokenizer.json, or -1.
  std::int32_t TokenId(std::string_view token) const;

  const TokenTable& table() const { return table_; }
  std::int32_t bos_id() const { return bos_id_; }  // -1: none
  std::int32_t eos_id() const { return eos_id_; }  // -1: none
  // Of <think> and </think>; -1 if it is not one control token.
  std::int32_t reasoning_open_id() const { return reasoning_open_id_; }
  std::int32_t reasoning_close_id() const { return reasoning_close_id_; }
  // Of the tags of tool calls; complete() if the model can call tools.
  const ToolTokens& tool_tokens() const { return tool_tokens_; }
  const TextLimits& limits() const { return limits_; }

  // For ChatTemplate: the ids of `text`, of which `prompt` has them or says in which segments they
  // are found.
  absl::StatusOr<std::vector<std::int32_t>> IdsOf(const AbiPrompt& prompt, std::string_view text,
                                                  const EncodeHelp& help) const;
  const baleen_text_tokenizer* handle() const { return handle_.get(); }

 private:
  struct HandleDeleter {
    void operator()(baleen_text_tokenizer* handle) const;
  };
  using Handle = std::unique_ptr<baleen_text_tokenizer, HandleDeleter>;

  Tokenizer(Handle handle, const TextLimits& limits);
  std::int32_t ControlId(std::string_view token) const;
  absl::StatusOr<std::vector<std::int32_t>> EncodePiece(std::string_view piece) const;

  Handle handle_;
  TextLimits limits_;
  TokenTable table_;
  std::int32_t bos_id_ = -1;
  std::int32_t eos_id_ = -1;
  std::int32_t reasoning_open_id_ = -1;
  std::int32_t reasoning_close_id_ = -1;
  ToolTokens tool_tokens_;
  bool adds_bos_ = false;
  bool encodes_segments_ = false;
};

// Content of the regular file `name` in `model_dir`, at most `bytes_max`. NOT_FOUND if there is
// none, FAILED_PRECONDITION if it is larger.
absl::StatusOr<std::string> ReadModelFile(const std::string& model_dir, std::string_view name,
                                          std::size_t bytes_max);

}  // namespace baleen::router
