#include "router/server/openai/request/common_fields.h"

#include <fmt/format.h>

#include <charconv>

#include "observability/base/status_macros.h"
#include "proto/contract/limits.h"

namespace baleen::router::openai {
namespace {

using json::FieldRow;
using json::Invalid;
using json::Kind;
using json::Path;
using json::ReadBoolean;
using json::ReadFloat;
using json::ReadInt32;
using json::ReadString;
using json::ReadUint32;
using json::Value;
using json::WrongKind;

// --- Sampling ---

template <void (v1::SamplingParams::*kSet)(float)>
absl::Status SetFloat(const Value& value, const Path& path, CommonTarget& target) {
  BALEEN_ASSIGN_OR_RETURN(const float number, ReadFloat(value, path));
  (target.sampling.*kSet)(number);
  return absl::OkStatus();
}

absl::Status SetTopK(const Value& value, const Path& path, CommonTarget& target) {
  constexpr std::int32_t kAll = -1;  // as vLLM spells it
  BALEEN_ASSIGN_OR_RETURN(const std::int32_t top_k, ReadInt32(value, path));
  if (top_k < kAll) return Invalid(path, fmt::format("{} is below -1, all", top_k));
  target.sampling.set_top_k(static_cast<std::uint32_t>(top_k == kAll ? 0 : top_k));
  return absl::OkStatus();
}

// OpenAI's seeds are signed, ours are not: equal bits are the same seed.
absl::Status SetSeed(const Value& value, const Path& path, CommonTarget& target) {
  if (!value.is(Kind::kNumber)) return WrongKind(path, value, "an integer");
  if (const auto seed = value.unsigned_integer()) {
    target.sampling.set_seed(*seed);
  } else if (const auto negative = value.integer()) {
    target.sampling.set_seed(static_cast<std::uint64_t>(*negative));
  } else {
    return Invalid(path, fmt::format("{} is not an integer of 64 bits", value.number()));
  }
  return absl::OkStatus();
}

// {"50256": -100}
absl::Status SetLogitBias(const Value& value, const Path& path, CommonTarget& target) {
  if (!value.is(Kind::kObject)) return WrongKind(path, value, "an object");
  if (const std::size_t count = value.size(); count > contract::kLogitBiasesMax) {
    return Invalid(path,
                   fmt::format("it has {} entries, limit {}", count, contract::kLogitBiasesMax));
  }
  for (const Value member : value) {
    const Path at(path, member.key());
    const std::string_view key = member.key();
    std::int32_t id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || key.starts_with('-')) {
      return Invalid(at, "the name is not a token id");
    }
    BALEEN_ASSIGN_OR_RETURN(const float bias, ReadFloat(member, at));
    v1::LogitBias& entry = *target.sampling.add_logit_bias();
    entry.set_token_id(id);
    entry.set_bias(bias);
  }
  return absl::OkStatus();
}

// --- Stopping ---

absl::Status SetMaxTokens(const Value& value, const Path& path, CommonTarget& target) {
  BALEEN_ASSIGN_OR_RETURN(const std::uint32_t tokens, ReadUint32(value, path));
  if (target.stop.has_max_tokens() && target.stop.max_tokens() != tokens) {
    return Invalid(path, "max_tokens and max_completion_tokens are the same thing, and differ");
  }
  target.stop.set_max_tokens(tokens);
  return absl::OkStatus();
}

absl::Status SetMinTokens(const Value& value, const Path& path, CommonTarget& target) {
  BALEEN_ASSIGN_OR_RETURN(const std::uint32_t tokens, ReadUint32(value, path));
  target.stop.set_min_tokens(tokens);
  return absl::OkStatus();
}

absl::Status SetIgnoreEos(const Value& value, const Path& path, CommonTarget& target) {
  BALEEN_ASSIGN_OR_RETURN(const bool ignore, ReadBoolean(value, path));
  target.stop.set_ignore_eos(ignore);
  return absl::OkStatus();
}

// "." or [".", "!"]
absl::Status SetStop(const Value& value, const Path& path, CommonTarget& target) {
  if (value.is(Kind::kString)) {
    target.stop.add_text(std::string(value.text()));
    return absl::OkStatus();
  }
  if (!value.is(Kind::kArray)) return WrongKind(path, value, "a string or an array of strings");
  std::size_t index = 0;
  for (const Value text : value) {
    if (index >= contract::kStopTextsMax) {
      return Invalid(path, fmt::format("it has more than {} texts", contract::kStopTextsMax));
    }
    BALEEN_ASSIGN_OR_RETURN(std::string stop, ReadString(text, Path(path, index)));
    target.stop.add_text(std::move(stop));
    ++index;
  }
  return absl::OkStatus();
}

absl::Status SetStopTokenIds(const Value& value, const Path& path, CommonTarget& target) {
  return ReadTokenIds(value, path, contract::kStopTokenIdsMax, *target.stop.mutable_token_ids());
}

// --- Format ---

struct FormatTarget {
  std::string type;
  std::optional<std::string> schema;
  std::optional<std::string> regex;
  std::optional<std::string> lark;
};

constexpr FieldRow<FormatTarget> kSchemaFields[] = {
    {"name", nullptr},
    {"description", nullptr},
    {"strict", nullptr},  // we always are
    {"schema",
     [](const Value& value, const Path& path, FormatTarget& target) {
       if (!value.is(Kind::kObject) && !value.is(Kind::kBoolean)) {
         return WrongKind(path, value, "a JSON Schema");
       }
       target.schema = value.ToText();
       return absl::OkStatus();
     }},
};

constexpr FieldRow<FormatTarget> kFormatFields[] = {
    {"type",
     [](const Value& value, const Path& path, FormatTarget& target) {
       BALEEN_ASSIGN_OR_RETURN(target.type, ReadString(value, path));
       return absl::OkStatus();
     }},
    {"json_schema",
     [](const Value& value, const Path& path, FormatTarget& target) {
       return ReadObject(value, path, kSchemaFields, target);
     }},
    {"regex",
     [](const Value& value, const Path& path, FormatTarget& target) {
       BALEEN_ASSIGN_OR_RETURN(target.regex, ReadString(value, path));
       return absl::OkStatus();
     }},
    {"lark",
     [](const Value& value, const Path& path, FormatTarget& target) {
       BALEEN_ASSIGN_OR_RETURN(target.lark, ReadString(value, path));
       return absl::OkStatus();
     }},
};

absl::Status SetFormat(const Value& value, const Path& path, CommonTarget& target) {
  FormatTarget read;
  BALEEN_RETURN_IF_ERROR(ReadObject(value, path, kFormatFields, read));
  v1::Format format;
  if (read.type == "text") {
    return absl::OkStatus();
  } else if (read.type == "json_object") {
    format.set_json_object(true);
  } else if (read.type == "json_schema" && read.schema) {
    format.set_json_schema(*std::move(read.schema));
  } else if (read.type == "json_schema") {
    return Invalid(Path(path, "json_schema"), "its schema is missing");
  } else if (read.type == "regex" && read.regex) {
    format.set_regex(*std::move(read.regex));
  } else if (read.type == "lark" && read.lark) {
    format.set_lark(*std::move(read.lark));
  } else if (read.type == "regex" || read.type == "lark") {
    return Invalid(path, fmt::format("the field \"{}\" is missing", read.type));
  } else {
    return Invalid(Path(path, "type"),
                   "it is none of text, json_object, json_schema, regex and lark");
  }
  target.format = std::move(format);
  return absl::OkStatus();
}

// --- The rest ---

absl::Status SetModel(const Value& value, const Path& path, CommonTarget& target) {
  BALEEN_ASSIGN_OR_RETURN(target.model, ReadString(value, path));
  return absl::OkStatus();
}

absl::Status SetChoices(const Value& value, const Path& path, CommonTarget& target) {
  BALEEN_ASSIGN_OR_RETURN(target.choices, ReadUint32(value, path));
  if (target.choices == 0) return Invalid(path, "0 is below 1");  // in the message it is unset
  return absl::OkStatus();
}

absl::Status SetPriority(const Value& value, const Path& path, CommonTarget& target) {
  BALEEN_ASSIGN_OR_RETURN(target.priority, ReadUint32(value, path));
  return absl::OkStatus();
}

absl::Status SetStream(const Value& value, const Path& path, CommonTarget& target) {
  BALEEN_ASSIGN_OR_RETURN(target.form.stream, ReadBoolean(value, path));
  return absl::OkStatus();
}

constexpr FieldRow<ReplyForm> kStreamOptions[] = {
    {"include_usage",
     [](const Value& value, const Path& path, ReplyForm& form) {
       BALEEN_ASSIGN_OR_RETURN(form.include_usage, ReadBoolean(value, path));
       return absl::OkStatus();
     }},
    {"include_obfuscation", nullptr},  // padding against guessing texts from sizes; we send none
};

absl::Status SetStreamOptions(const Value& value, const Path& path, CommonTarget& target) {
  target.has_stream_options = true;
  return ReadObject(value, path, kStreamOptions, target.form);
}

absl::Status SetReturnTokenIds(const Value& value, const Path& path, CommonTarget& target) {
  BALEEN_ASSIGN_OR_RETURN(target.form.return_token_ids, ReadBoolean(value, path));
  return absl::OkStatus();
}

absl::Status SetStore(const Value& value, const Path& path, CommonTarget&) {
  BALEEN_ASSIGN_OR_RETURN(const bool store, ReadBoolean(value, path));
  return store ? Invalid(path, "nothing is stored here: only false") : absl::OkStatus();
}

constexpr FieldRow<CommonTarget> kCommonFields[] = {
    {"model", SetModel},
    {"n", SetChoices},
    {"temperature", SetFloat<&v1::SamplingParams::set_temperature>},
    {"top_p", SetFloat<&v1::SamplingParams::set_top_p>},
    {"top_k", SetTopK},
    {"min_p", SetFloat<&v1::SamplingParams::set_min_p>},
    {"frequency_penalty", SetFloat<&v1::SamplingParams::set_frequency_penalty>},
    {"presence_penalty", SetFloat<&v1::SamplingParams::set_presence_penalty>},
    {"repetition_penalty", SetFloat<&v1::SamplingParams::set_repetition_penalty>},
    {"logit_bias", SetLogitBias},
    {"seed", SetSeed},
    {"max_tokens", SetMaxTokens},
    {"min_tokens", SetMinTokens},
    {"ignore_eos", SetIgnoreEos},
    {"stop", SetStop},
    {"stop_token_ids", SetStopTokenIds},
    {"response_format", SetFormat},
    {"priority", SetPriority},
    {"stream", SetStream},
    {"stream_options", SetStreamOptions},
    {"return_token_ids", SetReturnTokenIds},
    {"store", SetStore},
    {"user", nullptr},
    {"metadata", nullptr},
    {"service_tier", nullptr},
    {"safety_identifier", nullptr},
    {"prompt_cache_key", nullptr},
    {"prompt_cache_retention", nullptr},
};

}  // namespace

std::span<const FieldRow<CommonTarget>> CommonFields() { return kCommonFields; }

absl::Status RefuseWith(const Path& path, std::string_view hint) { return Invalid(path, hint); }

absl::Status ReadTokenIds(const Value& value, const Path& path, std::size_t count_max,
                          google::protobuf::RepeatedField<std::int32_t>& ids) {
  if (!value.is(Kind::kArray)) return WrongKind(path, value, "an array of token ids");
  const std::size_t count = value.size();
  if (count > count_max) {
    return Invalid(path, fmt::format("it has {} ids, limit {}", count, count_max));
  }
  ids.Reserve(static_cast<int>(count));
  std::size_t index = 0;
  for (const Value entry : value) {
    BALEEN_ASSIGN_OR_RETURN(const std::int32_t id, ReadInt32(entry, Path(path, index)));
    ids.Add(id);
    ++index;
  }
  return absl::OkStatus();
}

}  // namespace baleen::router::openai
