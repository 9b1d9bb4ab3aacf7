#include "tools/cli/placement/counts_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "observability/base/status_macros.h"
#include "tools/cli/cluster/descriptor.h"
#include "tools/cli/terminal/line_input.h"
#include "tools/cli/terminal/style.h"
#include "worker/model/format/strict_json.h"

namespace baleen::cli {
namespace {

using Json = nlohmann::json;

constexpr int kDepthMax = 3;  // the object, the layers, a layer

absl::Status Invalid(std::string_view what, const std::string& why) {
  return absl::InvalidArgumentError(fmt::format("{}: {}", what, why));
}

absl::Status OfSystem(const char* doing, const std::string& path) {
  return absl::ErrnoToStatus(errno, fmt::format("cannot {} {}", doing, path));
}

absl::StatusOr<const Json*> LayersOf(std::string_view what, const Json& object) {
  if (!object.is_object()) return Invalid(what, "not a JSON object");
  for (const auto& [name, value] : object.items()) {
    if (name != "layers") {
      return Invalid(what, fmt::format("unknown field {}: counts have \"layers\" only, a placement "
                                       "is for --placement",
                                       worker::Quoted(name)));
    }
  }
  const auto layers = object.find("layers");
  if (layers == object.end() || !layers->is_array()) {
    return Invalid(what, "field \"layers\" must be a list");
  }
  if (layers->empty() || layers->size() > worker::kMoeLayersMax) {
    return Invalid(what, fmt::format("field \"layers\" has {} of them, not 1 to {}", layers->size(),
                                     worker::kMoeLayersMax));
  }
  return &*layers;
}

absl::StatusOr<std::vector<std::uint64_t>> ParseLayer(const Json& layer) {
  if (!layer.is_array()) return absl::InvalidArgumentError("it must be a list");
  if (layer.empty() || layer.size() > worker::kExpertsMax) {
    return absl::InvalidArgumentError(
        fmt::format("{} experts, not 1 to {}", layer.size(), worker::kExpertsMax));
  }
  std::vector<std::uint64_t> tokens;
  for (const Json& count : layer) {
    if (!count.is_number_unsigned() || count.get<std::uint64_t>() > worker::kExpertTokensMax) {
      return absl::InvalidArgumentError(
          fmt::format("expert {} must have a whole number of tokens, 0 to {}", tokens.size(),
                      worker::kExpertTokensMax));
    }
    tokens.push_back(count.get<std::uint64_t>());
  }
  return tokens;
}

}  // namespace

absl::StatusOr<worker::ExpertCounts> ParseCounts(std::string_view what, std::string_view text) {
  BALEEN_ASSIGN_OR_RETURN(
      const Json object,
      worker::ParseStrictJson(what, text,
                              {.bytes_max = kCountsFileBytesMax, .depth_max = kDepthMax}));
  BALEEN_ASSIGN_OR_RETURN(const Json* const layers, LayersOf(what, object));
  worker::ExpertCounts counts;
  for (const Json& layer : *layers) {
    auto tokens = ParseLayer(layer);
    if (tokens.ok() && !counts.empty() && tokens->size() != counts[0].size()) {
      tokens = absl::InvalidArgumentError(
          fmt::format("{} experts, layers[0] has {}", tokens->size(), counts[0].size()));
    }
    if (!tokens.ok()) {
      return Invalid(what, fmt::format("layers[{}]: {}", counts.size(),
                                       std::string(tokens.status().message())));
    }
    counts.push_back(*std::move(tokens));
  }
  return counts;
}

std::string FormatCounts(const worker::ExpertCounts& counts) {
  std::string text = "{\"layers\": [";
  for (std::size_t layer = 0; layer < counts.size(); ++layer) {
    text += fmt::format("{}\n  [{}]", layer == 0 ? "" : ",", fmt::join(counts[layer], ", "));
  }
  return text + "\n ]}\n";
}

absl::StatusOr<worker::ExpertCounts> ReadCountsFile(const std::string& path) {
  const bool standard_input = path == "-";
  const Descriptor file(standard_input ? -1 : ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!standard_input && file.number() < 0) return OfSystem("open", path);
  const auto text = ReadAll(standard_input ? STDIN_FILENO : file.number(), kCountsFileBytesMax);
  if (absl::IsResourceExhausted(text.status())) {
    return Invalid(path, fmt::format("more than {} bytes, the limit", kCountsFileBytesMax));
  }
  if (!text.ok()) return Invalid(path, std::string(text.status().message()));
  return ParseCounts(standard_input ? "standard input" : path, *text);
}

absl::Status WriteCountsFile(const std::string& path, const worker::ExpertCounts& counts) {
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (file.number() < 0 || !WriteAll(file.number(), FormatCounts(counts))) {
    return OfSystem("write", path);
  }
  return absl::OkStatus();
}

}  // namespace baleen::cli
