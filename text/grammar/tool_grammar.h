// Tool calls as DeepSeek's models write them, as a grammar: names are those of the request's tools,
// arguments keep to each tool's schema.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "text/grammar/grammar.h"

namespace baleen::text {

// Control tokens of tool calls, as tokenizer.json spells them.
inline constexpr std::string_view kToolCallsBegin = "<｜tool▁calls▁begin｜>";
inline constexpr std::string_view kToolCallsEnd = "<｜tool▁calls▁end｜>";
inline constexpr std::string_view kToolCallBegin = "<｜tool▁call▁begin｜>";
inline constexpr std::string_view kToolCallEnd = "<｜tool▁call▁end｜>";
inline constexpr std::string_view kToolSeparator = "<｜tool▁sep｜>";

// Their ids in the model's vocabulary.
struct ToolTokens {
  std::int32_t calls_begin = -1;
  std::int32_t calls_end = -1;
  std::int32_t call_begin = -1;
  std::int32_t call_end = -1;
  std::int32_t separator = -1;
};

enum class ToolCallFormat : std::uint8_t {
  // V3, R1: <call_begin>function<sep>NAME\n```json\n{arguments}\n```<call_end>, calls apart by a
  // line
  // end.
  kFunctionJsonBlock,
  // V3.1: <call_begin>NAME<sep>{arguments}<call_end>
  kNameArguments,
};

struct ToolDeclaration {
  std::string_view name;        // 1 to 64 of a-z, A-Z, 0-9, '_', '-' and '.'
  std::string_view parameters;  // JSON Schema of an object; empty: an object without members
};

struct ToolGrammarOptions {
  ToolCallFormat format = ToolCallFormat::kNameArguments;
  ToolTokens tokens;
  std::span<const ToolDeclaration> tools;  // that may be called, at least one
  // The grammar of what follows calls_begin, which the model chose to write; else calls_begin comes
  // first.
  bool after_calls_begin = false;
  bool single = false;  // exactly one call; else one or more
};

// INVALID_ARGUMENT if a name is out of its range, or parameters are no JSON object; schemas are
// checked when the grammar is compiled.
absl::StatusOr<GrammarSource> ToolCallGrammar(const ToolGrammarOptions& options);

}  // namespace baleen::text
