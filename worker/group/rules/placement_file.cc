#include "worker/group/rules/placement_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "observability/base/status_macros.h"
#include "worker/model/format/json_fields.h"
#include "worker/model/format/strict_json.h"

namespace baleen::worker {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kFormatVersion = 1;
constexpr int kDepthMax = 3;  // the object, the layers, a layer
constexpr std::array<std::string_view, 5> kFields = {"version", "experts", "ranks",
                                                     "redundant_experts", "layers"};

absl::Status Invalid(std::string_view what, const std::string& why) {
  return absl::InvalidArgumentError(fmt::format("{}: {}", what, why));
}

absl::Status CheckFields(std::string_view what, const Json& object) {
  if (!object.is_object()) return Invalid(what, "not a JSON object");
  for (const auto& [name, value] : object.items()) {
    if (std::find(kFields.begin(), kFields.end(), name) == kFields.end()) {
      return Invalid(what, fmt::format("there is no field {}", Quoted(name)));
    }
  }
  const auto layers = object.find("layers");
  if (layers == object.end() || !layers->is_array()) {
    return Invalid(what, "field \"layers\" must be a list");
  }
  return absl::OkStatus();
}

absl::StatusOr<LayerPlacement> ParseLayer(const PlacementShape& shape, const Json& layer) {
  if (!layer.is_array()) return absl::InvalidArgumentError("it must be a list");
  if (layer.size() != static_cast<std::size_t>(shape.slots())) {
    return absl::InvalidArgumentError(
        fmt::format("{} slots, must be {}", layer.size(), shape.slots()));
  }
  std::vector<std::int32_t> experts;
  for (const Json& expert : layer) {
    if (!expert.is_number_unsigned() || expert.get<std::uint64_t>() >= kExpertsMax) {
      return absl::InvalidArgumentError(
          fmt::format("slot {} must be an expert, 0 to {}", experts.size(), shape.experts - 1));
    }
    experts.push_back(static_cast<std::int32_t>(expert.get<std::uint64_t>()));
  }
  return LayerPlacement::Make(shape, std::move(experts));
}

absl::Status OfSystem(const char* doing, const std::string& path) {
  return absl::ErrnoToStatus(errno, fmt::format("cannot {} {}", doing, path));
}

// A file that is closed when it goes.
struct Closer {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Closer>;

}  // namespace

absl::StatusOr<GroupPlacement> ParsePlacement(std::string_view what, std::string_view text) {
  BALEEN_ASSIGN_OR_RETURN(
      const Json object,
      ParseStrictJson(what, text, {.bytes_max = kPlacementFileBytesMax, .depth_max = kDepthMax}));
  BALEEN_RETURN_IF_ERROR(CheckFields(what, object));
  JsonFields fields(std::string(what), object);
  fields.Integer("version", {.min = kFormatVersion, .max = kFormatVersion});
  GroupPlacement placement;
  placement.shape.experts =
      static_cast<std::int32_t>(fields.Integer("experts", {.max = kExpertsMax}));
  placement.shape.ranks =
      static_cast<std::int32_t>(fields.Integer("ranks", {.max = kGroupRanksMax}));
  placement.shape.redundant_experts = static_cast<std::int32_t>(fields.Integer(
      "redundant_experts", {.min = 0, .max = static_cast<std::int64_t>(kPlacementSlotsMax)}));
  BALEEN_RETURN_IF_ERROR(fields.status());
  if (const absl::Status shape = CheckPlacementShape(placement.shape); !shape.ok()) {
    return Invalid(what, std::string(shape.message()));
  }
  const Json& layers = object.at("layers");
  if (layers.empty() || layers.size() > kMoeLayersMax) {
    return Invalid(what, fmt::format("field \"layers\" has {} of them, not 1 to {}", layers.size(),
                                     kMoeLayersMax));
  }
  for (const Json& layer : layers) {
    absl::StatusOr<LayerPlacement> made = ParseLayer(placement.shape, layer);
    if (!made.ok()) {
      return Invalid(what, fmt::format("layers[{}]: {}", placement.layers.size(),
                                       std::string(made.status().message())));
    }
    placement.layers.push_back(*std::move(made));
  }
  if (const absl::Status whole = CheckGroupPlacement(placement); !whole.ok()) {
    return Invalid(what, std::string(whole.message()));
  }
  return placement;
}

std::string FormatPlacement(const GroupPlacement& placement) {
  std::string text = fmt::format(
      "{{\"version\": {}, \"experts\": {}, \"ranks\": {}, \"redundant_experts\": {},\n"
      " \"layers\": [",
      kFormatVersion, placement.shape.experts, placement.shape.ranks,
      placement.shape.redundant_experts);
  for (std::size_t layer = 0; layer < placement.layers.size(); ++layer) {
    text += fmt::format("{}\n  [{}]", layer == 0 ? "" : ",",
                        fmt::join(placement.layers[layer].expert_of_slot(), ", "));
  }
  return text + "\n ]}\n";
}

absl::StatusOr<GroupPlacement> ReadPlacementFile(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return OfSystem("open", path);
  const File file(::fdopen(descriptor, "rb"));
  if (file == nullptr) {
    const absl::Status why = OfSystem("open", path);
    ::close(descriptor);
    return why;
  }
  struct stat facts {};
  if (::fstat(descriptor, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    return absl::InvalidArgumentError(fmt::format("{} is not a regular file", path));
  }
  // One byte more than may be there tells a file that is too long.
  std::string text(kPlacementFileBytesMax + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  if (std::ferror(file.get()) != 0) return OfSystem("read", path);
  return ParsePlacement(path, text);
}

absl::Status WritePlacementFile(const std::string& path, const GroupPlacement& placement) {
  const std::string text = FormatPlacement(placement);
  // Replacing a device or a link would take it from its other users.
  struct stat there {};
  if (::lstat(path.c_str(), &there) == 0 && !S_ISREG(there.st_mode)) {
    return absl::InvalidArgumentError(fmt::format("{}: is there, and no regular file", path));
  }
  const std::string fresh = path + ".new";
  {
    File file(std::fopen(fresh.c_str(), "wbe"));
    if (file == nullptr) return OfSystem("write", fresh);
    const bool written = std::fwrite(text.data(), 1, text.size(), file.get()) == text.size() &&
                         std::fflush(file.get()) == 0 && ::fsync(::fileno(file.get())) == 0;
    if (!written) {
      const absl::Status why = OfSystem("write", fresh);
      ::unlink(fresh.c_str());
      return why;
    }
  }
  if (std::rename(fresh.c_str(), path.c_str()) != 0) {
    const absl::Status why = OfSystem("write", path);
    ::unlink(fresh.c_str());
    return why;
  }
  return absl::OkStatus();
}

}  // namespace baleen::worker
