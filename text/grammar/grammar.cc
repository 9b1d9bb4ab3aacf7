#include "text/grammar/grammar.h"

#include <filesystem>
#include <fstream>
#include <string_view>
#include <utility>

#include "fmt/format.h"
#include "observability/base/check.h"
#include "observability/base/status_macros.h"
#include "text/crate/baleen_grammar.h"

namespace baleen::text {
namespace {

constexpr std::string_view kTokenizerFile = "tokenizer.json";
constexpr std::string_view kConfigFile = "tokenizer_config.json";
// As for the router's tokenizer.
constexpr baleen_text_limits kTokenizerLimits = {
    .tokenizer_json_bytes_max = std::size_t{64} << 20,
    .config_json_bytes_max = std::size_t{4} << 20,
    .text_bytes_max = 0,
    .messages_max = 0,
};

// The kinds are numbered alike on both sides.
static_assert(static_cast<int>(GrammarKind::kJsonSchema) == BALEEN_GRAMMAR_JSON_SCHEMA);
static_assert(static_cast<int>(GrammarKind::kRegex) == BALEEN_GRAMMAR_REGEX);
static_assert(static_cast<int>(GrammarKind::kLark) == BALEEN_GRAMMAR_LARK);

absl::Status ToStatus(std::int32_t code, const baleen_text_error& error) {
  if (code == BALEEN_TEXT_OK) return absl::OkStatus();
  const std::string message(error.message, error.message_size);
  if (code == BALEEN_TEXT_INVALID_INPUT) return absl::InvalidArgumentError(message);
  if (code == BALEEN_TEXT_INVALID_MODEL) return absl::FailedPreconditionError(message);
  return absl::InternalError(message);
}

absl::StatusOr<std::string> ReadModelFile(const std::string& model_dir, std::string_view name,
                                          std::size_t bytes_max) {
  const std::filesystem::path path = std::filesystem::path(model_dir) / name;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return absl::NotFoundError(fmt::format("{} not found in {}", name, model_dir));
  }
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::FailedPreconditionError(fmt::format("{}: not a regular file", path.string()));
  }
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) {
    return absl::FailedPreconditionError(fmt::format("{}: {}", path.string(), error.message()));
  }
  if (size > bytes_max) {
    return absl::FailedPreconditionError(
        fmt::format("{} is {} bytes, limit {}", path.string(), size, bytes_max));
  }
  std::string content(size, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(content.data(), static_cast<std::streamsize>(size));
  if (!file) return absl::FailedPreconditionError(fmt::format("can not read {}", path.string()));
  return content;
}

struct TokenizerDeleter {
  void operator()(baleen_text_tokenizer* tokenizer) const { baleen_text_tokenizer_free(tokenizer); }
};

}  // namespace

GrammarSource JsonObjectGrammar() {
  return {.kind = GrammarKind::kJsonSchema, .text = R"({"type":"object"})"};
}

void Vocabulary::HandleDeleter::operator()(baleen_grammar_vocabulary* handle) const {
  baleen_grammar_vocabulary_free(handle);
}

absl::StatusOr<std::shared_ptr<const Vocabulary>> Vocabulary::Load(
    const std::string& model_dir, const VocabularyOptions& options) {
  BALEEN_ASSIGN_OR_RETURN(
      const std::string json,
      ReadModelFile(model_dir, kTokenizerFile, kTokenizerLimits.tokenizer_json_bytes_max));
  absl::StatusOr<std::string> config =
      ReadModelFile(model_dir, kConfigFile, kTokenizerLimits.config_json_bytes_max);
  if (absl::IsNotFound(config.status())) config = std::string();
  BALEEN_RETURN_IF_ERROR(config.status());
  baleen_text_tokenizer* raw = nullptr;
  baleen_text_error error;
  BALEEN_RETURN_IF_ERROR(
      ToStatus(baleen_text_tokenizer_load(&kTokenizerLimits, {json.data(), json.size()},
                                          {config->data(), config->size()}, &raw, &error),
               error));
  // Only its tokens are wanted.
  const std::unique_ptr<baleen_text_tokenizer, TokenizerDeleter> tokenizer(raw);
  return Create(*tokenizer, options);
}

absl::StatusOr<std::shared_ptr<const Vocabulary>> Vocabulary::Create(
    const baleen_text_tokenizer& tokenizer, const VocabularyOptions& options) {
  baleen_text_vocabulary tokens;
  baleen_text_tokenizer_vocabulary(&tokenizer, &tokens);
  std::vector<std::int32_t> eos = options.eos_token_ids;
  if (eos.empty() && tokens.eos_id >= 0) eos.push_back(tokens.eos_id);
  baleen_grammar_vocabulary* raw = nullptr;
  baleen_text_error error;
  BALEEN_RETURN_IF_ERROR(ToStatus(
      baleen_grammar_vocabulary_create(&tokens, options.size, eos.data(), eos.size(), &raw, &error),
      error));
  const std::uint32_t size = baleen_grammar_vocabulary_size(raw);
  return std::shared_ptr<const Vocabulary>(new Vocabulary(Handle(raw), size));
}

void Grammar::HandleDeleter::operator()(baleen_grammar* handle) const {
  baleen_grammar_free(handle);
}

absl::StatusOr<std::shared_ptr<const Grammar>> Grammar::Compile(
    std::shared_ptr<const Vocabulary> vocabulary, const GrammarSource& source,
    const GrammarLimits& limits) {
  const baleen_grammar_limits abi_limits = {.source_bytes_max = limits.source_bytes_max,
                                            .schema_depth_max = limits.schema_depth_max,
                                            .compile_ms_max = limits.compile_ms_max,
                                            .symbols_max = limits.symbols_max,
                                            .compile_fuel_max = limits.compile_fuel_max,
                                            .mask_fuel_max = limits.mask_fuel_max,
                                            .mask_items_max = limits.mask_items_max,
                                            .lexer_states_max = limits.lexer_states_max};
  baleen_grammar* raw = nullptr;
  baleen_text_error error;
  const std::int32_t code =
      baleen_grammar_compile(vocabulary->handle(), static_cast<std::int32_t>(source.kind),
                             {source.text.data(), source.text.size()}, &abi_limits, &raw, &error);
  BALEEN_RETURN_IF_ERROR(ToStatus(code, error));
  return std::shared_ptr<const Grammar>(new Grammar(Handle(raw), std::move(vocabulary)));
}

void Matcher::HandleDeleter::operator()(baleen_grammar_matcher* handle) const {
  baleen_grammar_matcher_free(handle);
}

absl::StatusOr<std::unique_ptr<Matcher>> Matcher::Create(std::shared_ptr<const Grammar> grammar) {
  baleen_grammar_matcher* raw = nullptr;
  baleen_text_error error;
  BALEEN_RETURN_IF_ERROR(
      ToStatus(baleen_grammar_matcher_create(grammar->handle(), &raw, &error), error));
  return std::unique_ptr<Matcher>(new Matcher(Handle(raw), std::move(grammar)));
}

absl::Status Matcher::Mask(std::span<std::uint32_t> out) {
  BALEEN_CHECK(out.size() == vocabulary().mask_words(), "a mask has a bit for each token");
  baleen_text_error error;
  const std::int32_t code =
      baleen_grammar_matcher_mask(handle_.get(), out.data(), out.size(), &error);
  absl::Status status = ToStatus(code, error);
  if (!absl::IsInvalidArgument(status)) return status;
  return absl::ResourceExhaustedError(status.message());
}

absl::Status Matcher::Consume(std::int32_t token) {
  baleen_text_error error;
  return ToStatus(baleen_grammar_matcher_consume(handle_.get(), token, &error), error);
}

bool Matcher::is_stopped() const { return baleen_grammar_matcher_is_stopped(handle_.get()) != 0; }

}  // namespace baleen::text
