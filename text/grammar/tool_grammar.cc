#include "text/grammar/tool_grammar.h"

#include <algorithm>
#include <cstddef>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "observability/base/status_macros.h"
#include "proto/contract/limits.h"

namespace baleen::text {
namespace {

using Json = nlohmann::ordered_json;

// As for JSON formats (text/crate/src/grammar_source.rs): so many blanks at a time.
constexpr char kWhitespacePattern[] = R"([\x20\x0A\x0D\x09]{1,128})";
constexpr char kSchemaOptionsKey[] = "x-guidance";

bool IsNameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.';
}

absl::Status CheckName(std::string_view name) {
  if (name.empty() || name.size() > contract::kToolNameBytesMax ||
      !std::all_of(name.begin(), name.end(), IsNameCharacter)) {
    return absl::InvalidArgumentError(
        fmt::format("the name of a tool is not 1 to {} of a-z, A-Z, 0-9, '_', '-' and '.'",
                    contract::kToolNameBytesMax));
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> ParseSchema(std::string_view name, std::string_view parameters) {
  const int depth_max = static_cast<int>(GrammarLimits{}.schema_depth_max);
  bool too_deep = false;
  const auto filter = [&](int depth, Json::parse_event_t, Json&) {
    too_deep |= depth > depth_max;
    return depth <= depth_max;
  };
  Json schema = Json::parse(parameters.begin(), parameters.end(), filter,
                            /*allow_exceptions=*/false);
  if (too_deep) {
    return absl::InvalidArgumentError(
        fmt::format("parameters of tool {}: deeper than {} levels", name, depth_max));
  }
  if (!schema.is_object()) {
    return absl::InvalidArgumentError(fmt::format("parameters of tool {}: no JSON object", name));
  }
  return schema;
}

// The schema of a tool's arguments as one line of JSON.
absl::StatusOr<std::string> SchemaOf(const ToolDeclaration& tool) {
  Json schema = {{"type", "object"}, {"additionalProperties", false}};
  if (!tool.parameters.empty()) {
    BALEEN_ASSIGN_OR_RETURN(schema, ParseSchema(tool.name, tool.parameters));
    if (!schema.contains("type")) schema["type"] = "object";
    if (schema["type"] != "object") {
      return absl::InvalidArgumentError(
          fmt::format("parameters of tool {}: the type is not object", tool.name));
    }
  }
  schema[kSchemaOptionsKey] = {{"whitespace_pattern", kWhitespacePattern}};
  return schema.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
}

std::string Token(std::int32_t id) { return fmt::format("<[{}]>", id); }

}  // namespace

absl::StatusOr<GrammarSource> ToolCallGrammar(const ToolGrammarOptions& options) {
  if (options.tools.empty()) return absl::InvalidArgumentError("no tool may be called");
  const ToolTokens& tokens = options.tokens;
  const bool json_block = options.format == ToolCallFormat::kFunctionJsonBlock;
  std::string lark = fmt::format("start: {}call{} {}\n",
                                 options.after_calls_begin ? "" : Token(tokens.calls_begin) + " ",
                                 options.single ? ""
                                 : json_block   ? " (\"\\n\" call)*"
                                                : " call*",
                                 Token(tokens.calls_end));
  std::string alternatives;
  std::string rules;
  for (std::size_t i = 0; i < options.tools.size(); ++i) {
    const ToolDeclaration& tool = options.tools[i];
    BALEEN_RETURN_IF_ERROR(CheckName(tool.name));
    BALEEN_ASSIGN_OR_RETURN(const std::string schema, SchemaOf(tool));
    alternatives += fmt::format("{}tool_{}", i == 0 ? "" : " | ", i);
    rules +=
        json_block
            ? fmt::format("tool_{}: \"{}\\n```json\\n\" args_{} \"\\n```\"\n", i, tool.name, i)
            : fmt::format("tool_{}: \"{}\" {} args_{}\n", i, tool.name, Token(tokens.separator), i);
    rules += fmt::format("args_{}: %json {}\n", i, schema);
  }
  const std::string opening =
      json_block ? fmt::format("\"function\" {} ", Token(tokens.separator)) : "";
  lark += fmt::format("call: {} {}({}) {}\n{}", Token(tokens.call_begin), opening, alternatives,
                      Token(tokens.call_end), rules);
  return GrammarSource{.kind = GrammarKind::kLark, .text = std::move(lark)};
}

}  // namespace baleen::text
