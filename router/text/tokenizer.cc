#include "router/text/tokenizer.h"

#include <filesystem>
#include <fstream>
#include <utility>

#include "fmt/format.h"
#include "observability/base/status_macros.h"
#include "router/text/reasoning.h"
#include "router/text/text_abi.h"

namespace baleen::router {
namespace {

constexpr std::string_view kTokenizerFile = "tokenizer.json";
constexpr std::string_view kConfigFile = "tokenizer_config.json";

TokenTable BuildTable(const baleen_text_vocabulary& vocabulary) {
  TokenTable table;
  table.set_strips_leading_space(vocabulary.strips_leading_space != 0);
  for (std::uint32_t id = 0; id < vocabulary.id_end; ++id) {
    const std::uint32_t begin = vocabulary.offsets[id];
    const std::uint8_t flags = vocabulary.flags[id];
    table.Add({.bytes = {vocabulary.bytes + begin, vocabulary.offsets[id + 1] - begin},
               .exists = (flags & BALEEN_TEXT_TOKEN_EXISTS) != 0,
               .special = (flags & BALEEN_TEXT_TOKEN_SPECIAL) != 0,
               .control = (flags & BALEEN_TEXT_TOKEN_CONTROL) != 0});
  }
  return table;
}

}  // namespace

absl::StatusOr<std::string> ReadModelFile(const std::string& model_dir, std::string_view name,
                                          std::size_t bytes_max) {
  const std::filesystem::path path = std::filesystem::path(model_dir) / name;
  std::error_code error;
  // A link to nothing is there: who made it meant something by it.
  if (std::filesystem::symlink_status(path, error).type() ==
      std::filesystem::file_type::not_found) {
    return absl::NotFoundError(fmt::format("{} not found in {}", name, model_dir));
  }
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::FailedPreconditionError(
        fmt::format("{}: {}", path.string(), error ? error.message() : "not a regular file"));
  }
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error)
    return absl::FailedPreconditionError(fmt::format("{}: {}", path.string(), error.message()));
  if (size == 0) return absl::FailedPreconditionError(fmt::format("{} is empty", path.string()));
  if (size > bytes_max) {
    return absl::FailedPreconditionError(
        fmt::format("{} is {} bytes, limit {}", path.string(), size, bytes_max));
  }
  std::string content(size, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(content.data(), static_cast<std::streamsize>(size));
  if (!file || file.gcount() != static_cast<std::streamsize>(size)) {
    return absl::FailedPreconditionError(fmt::format("can not read {}", path.string()));
  }
  return content;
}

void Tokenizer::HandleDeleter::operator()(baleen_text_tokenizer* handle) const {
  baleen_text_tokenizer_free(handle);
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Load(const std::string& model_dir,
                                                                 const TextLimits& limits) {
  BALEEN_ASSIGN_OR_RETURN(const std::string json,
                          ReadModelFile(model_dir, kTokenizerFile, kTokenizerFileBytesMax));
  absl::StatusOr<std::string> config =
      ReadModelFile(model_dir, kConfigFile, kTokenizerConfigBytesMax);
  if (!config.ok() && !absl::IsNotFound(config.status())) return config.status();

  const baleen_text_limits abi_limits = {.tokenizer_json_bytes_max = kTokenizerFileBytesMax,
                                         .config_json_bytes_max = kTokenizerConfigBytesMax,
                                         .text_bytes_max = limits.text_bytes_max,
                                         .messages_max = limits.messages_max};
  baleen_text_tokenizer* raw = nullptr;
  baleen_text_error error;
  const std::int32_t code = baleen_text_tokenizer_load(
      &abi_limits, ToSpan(json), ToSpan(config.ok() ? *config : std::string_view()), &raw, &error);
  BALEEN_RETURN_IF_ERROR(ToStatus(code, error, model_dir));
  return std::shared_ptr<const Tokenizer>(new Tokenizer(Handle(raw), limits));
}

Tokenizer::Tokenizer(Handle handle, const TextLimits& limits)
    : handle_(std::move(handle)), limits_(limits) {
  baleen_text_vocabulary vocabulary;
  baleen_text_tokenizer_vocabulary(handle_.get(), &vocabulary);
  table_ = BuildTable(vocabulary);
  bos_id_ = vocabulary.bos_id;
  eos_id_ = vocabulary.eos_id;
  adds_bos_ = vocabulary.adds_bos != 0;
  encodes_segments_ = vocabulary.encodes_segments != 0;
  reasoning_open_id_ = ControlId(kReasoningOpenTag);
  reasoning_close_id_ = ControlId(kReasoningCloseTag);
  tool_tokens_ = {.calls_begin = ControlId(kToolCallsBeginTag),
                  .calls_end = ControlId(kToolCallsEndTag),
                  .call_begin = ControlId(kToolCallBeginTag),
                  .call_end = ControlId(kToolCallEndTag),
                  .separator = ControlId(kToolSeparatorTag)};
}

absl::StatusOr<std::vector<std::int32_t>> Tokenizer::Encode(std::string_view text,
                                                            ControlText control,
                                                            const EncodeHelp& help) const {
  AbiPrompt prompt;
  baleen_text_error error;
  const auto encode = encodes_segments_ ? baleen_text_segments : baleen_text_encode;
  const std::int32_t code = encode(handle_.get(), ToSpan(text),
                                   control == ControlText::kAsTokens ? 1 : 0, prompt.out(), &error);
  BALEEN_RETURN_IF_ERROR(ToStatus(code, error));
  return IdsOf(prompt, text, help);
}

absl::StatusOr<std::vector<std::int32_t>> Tokenizer::EncodePiece(std::string_view piece) const {
  AbiPrompt prompt;
  baleen_text_error error;
  const std::int32_t code =
      baleen_text_encode_piece(handle_.get(), ToSpan(piece), prompt.out(), &error);
  BALEEN_RETURN_IF_ERROR(ToStatus(code, error));
  return prompt.token_ids();
}

absl::StatusOr<std::vector<std::int32_t>> Tokenizer::IdsOf(const AbiPrompt& prompt,
                                                           std::string_view text,
                                                           const EncodeHelp& help) const {
  if (!encodes_segments_) return prompt.token_ids();
  std::vector<Part> parts;
  for (const baleen_text_segment& segment : prompt.segments()) {
    const std::string_view piece = text.substr(segment.begin, segment.end - segment.begin);
    parts.push_back({.text = piece, .ids = {}});
    Part& part = parts.back();
    if (segment.control_id >= 0) part.ids = {segment.control_id};
    part.known =
        segment.control_id >= 0 || (help.cache != nullptr && help.cache->Find(piece, &part.ids));
  }
  const auto piece_end = [this](std::string_view rest) {
    return baleen_text_piece_end(handle_.get(), ToSpan(rest), kPieceBytesMin);
  };
  const auto encode = [this](std::string_view piece) { return EncodePiece(piece); };
  BALEEN_RETURN_IF_ERROR(EncodeParts({.piece_end = piece_end, .encode = encode}, help, parts));
  return Joined(parts);
}

absl::StatusOr<std::vector<std::int32_t>> Tokenizer::EncodePrompt(std::string_view text,
                                                                  const EncodeHelp& help) const {
  if (text.empty()) return absl::InvalidArgumentError("text is empty");
  BALEEN_ASSIGN_OR_RETURN(std::vector<std::int32_t> ids,
                          Encode(text, ControlText::kAsTokens, help));
  if (adds_bos_) ids.insert(ids.begin(), bos_id_);
  return ids;
}

absl::Status Tokenizer::CheckIds(std::span<const std::int32_t> ids) const {
  if (ids.empty()) return absl::InvalidArgumentError("token_ids is empty");
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (!table_.At(ids[i]).exists) {
      return absl::InvalidArgumentError(
          fmt::format("token_ids[{}] is {}, no token of the vocabulary (0 to {})", i, ids[i],
                      table_.id_end() - 1));
    }
  }
  return absl::OkStatus();
}

std::string Tokenizer::Decode(std::span<const std::int32_t> ids) const {
  return Detokenize(table_, ids);
}

std::int32_t Tokenizer::TokenId(std::string_view token) const {
  return baleen_text_token_id(handle_.get(), ToSpan(token));
}

std::int32_t Tokenizer::ControlId(std::string_view token) const {
  const std::int32_t id = TokenId(token);
  return table_.At(id).control ? id : -1;
}

}  // namespace baleen::router
