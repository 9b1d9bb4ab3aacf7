#include "worker/model/checkpoint.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"
#include "observability/base/status_macros.h"
#include "openssl/evp.h"
#include "worker/model/config.h"
#include "worker/model/format/strict_json.h"

namespace baleen::worker {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr int kIndexDepthMax = 8;

// Linux brings in the pages of a mapped file in windows of this size, aligned to it.
constexpr std::uintptr_t kFaultBytes = 64u << 10;

// A file mapped read-only.
class Mapping {
 public:
  static absl::StatusOr<Mapping> Open(const std::filesystem::path& path) {
    // Non-blocking: a FIFO in place of a file must not hang the start.
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
      const int error = errno;  // formatting may change it
      const std::string why = fmt::format("{}: {}", path.string(), std::strerror(error));
      return error == ENOENT ? absl::NotFoundError(why) : absl::PermissionDeniedError(why);
    }
    const auto close_file = absl::MakeCleanup([file] { close(file); });
    struct stat facts = {};
    if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) {
      return absl::InvalidArgumentError(fmt::format("{}: not a regular file", path.string()));
    }
    const auto bytes = static_cast<std::size_t>(facts.st_size);
    if (bytes == 0) return Mapping(nullptr, 0);
    void* address = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (address == MAP_FAILED) {
      const int error = errno;
      return absl::ResourceExhaustedError(
          fmt::format("{}: cannot map {} bytes: {}", path.string(), bytes, std::strerror(error)));
    }
    return Mapping(static_cast<const std::byte*>(address), bytes);
  }

  Mapping(Mapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (address_ != nullptr) munmap(const_cast<std::byte*>(address_), bytes_);
  }

  // Gives the pages of `part` back to the system, and those that came in with them.
  void Release(std::span<const std::byte> part) const {
    if (part.empty()) return;
    const auto first = reinterpret_cast<std::uintptr_t>(address_);
    const auto begin = reinterpret_cast<std::uintptr_t>(part.data());
    const std::uintptr_t from = std::max(first, begin / kFaultBytes * kFaultBytes);
    const std::uintptr_t to = std::min(
        first + bytes_, (begin + part.size() + kFaultBytes - 1) / kFaultBytes * kFaultBytes);
    // A hint: where it fails, memory is not given back, and nothing is wrong.
    (void)madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
  }

  std::span<const std::byte> bytes() const { return {address_, bytes_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(address_), bytes_}; }

 private:
  Mapping(const std::byte* address, std::size_t bytes) : address_(address), bytes_(bytes) {}

  const std::byte* address_;
  std::size_t bytes_;
};

struct Shard {
  std::string file;  // its plain name
  Mapping mapping;
  std::vector<TensorEntry> entries;  // in the order of their bytes
};

struct Place {
  std::uint32_t shard = 0;
  std::uint32_t entry = 0;
};

absl::Status Prefixed(std::string_view prefix, const absl::Status& status) {
  return absl::Status(status.code(), fmt::format("{}: {}", prefix, std::string(status.message())));
}

absl::StatusOr<Shard> OpenShard(const std::filesystem::path& directory, const std::string& file) {
  BALEEN_ASSIGN_OR_RETURN(Mapping mapping, Mapping::Open(directory / file));
  absl::StatusOr<std::vector<TensorEntry>> entries =
      ParseSafetensorsHeader(mapping.bytes(), mapping.bytes().size());
  if (!entries.ok()) return Prefixed((directory / file).string(), entries.status());
  return Shard{file, std::move(mapping), *std::move(entries)};
}

// A shard's name comes from a file: it must not lead out of the model's directory.
bool IsPlainFileName(std::string_view name) {
  constexpr std::string_view kSuffix = ".safetensors";
  constexpr std::size_t kFileNameBytesMax = 255;
  return name.size() > kSuffix.size() && name.size() <= kFileNameBytesMax &&
         name.ends_with(kSuffix) && !name.starts_with('.') && std::ranges::all_of(name, [](char c) {
           return c > 0x20 && c < 0x7f && c != '/' && c != '\\';
         });
}

using WeightMap = std::map<std::string, std::string, std::less<>>;  // tensor -> shard file

absl::StatusOr<WeightMap> ReadIndex(const std::filesystem::path& path) {
  BALEEN_ASSIGN_OR_RETURN(const Mapping mapping, Mapping::Open(path));
  BALEEN_ASSIGN_OR_RETURN(
      const nlohmann::json json,
      ParseStrictJson(path.string(), mapping.text(),
                      {.bytes_max = kIndexBytesMax, .depth_max = kIndexDepthMax}));
  const auto fail = [&](const std::string& why) {
    return absl::InvalidArgumentError(fmt::format("{}: {}", path.string(), why));
  };
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    return fail("needs an object weight_map");
  }
  WeightMap map;
  for (const auto& [name, file] : json["weight_map"].items()) {
    if (!file.is_string() || !IsPlainFileName(file.get_ref<const std::string&>())) {
      return fail(fmt::format("tensor {}: {} is not the plain name of a .safetensors file",
                              Quoted(name), Shown(file.dump(-1, ' ', true))));
    }
    map.emplace(name, file.get<std::string>());
  }
  if (map.empty()) return fail("weight_map is empty");
  return map;
}

}  // namespace

struct Checkpoint::State {
  std::vector<Shard> shards;       // by file name, ascending
  std::vector<std::string> names;  // ascending
  std::vector<Place> places;       // of names[i]
  std::uint64_t bytes = 0;

  std::optional<Place> Find(std::string_view name) const {
    const auto found = std::ranges::lower_bound(names, name);
    if (found == names.end() || *found != name) return std::nullopt;
    return places[static_cast<std::size_t>(found - names.begin())];
  }
  const TensorEntry& entry(Place place) const { return shards[place.shard].entries[place.entry]; }
  absl::Status IndexTensors(const std::filesystem::path& directory);
  absl::Status CheckWeightMap(const std::filesystem::path& index, const WeightMap& map) const;
};

// Fills names and places. A tensor in two shards is an error: which one counts would be a guess.
absl::Status Checkpoint::State::IndexTensors(const std::filesystem::path& directory) {
  std::vector<std::pair<std::string_view, Place>> all;
  for (std::uint32_t s = 0; s < shards.size(); ++s) {
    bytes += shards[s].mapping.bytes().size();
    for (std::uint32_t e = 0; e < shards[s].entries.size(); ++e) {
      all.emplace_back(shards[s].entries[e].name, Place{s, e});
    }
  }
  std::ranges::sort(all, {}, &std::pair<std::string_view, Place>::first);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i > 0 && all[i].first == all[i - 1].first) {
      return absl::InvalidArgumentError(
          fmt::format("{}: tensor {} is in {} and in {}", directory.string(), Quoted(all[i].first),
                      shards[all[i - 1].second.shard].file, shards[all[i].second.shard].file));
    }
    names.emplace_back(all[i].first);
    places.push_back(all[i].second);
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::State::CheckWeightMap(const std::filesystem::path& index,
                                               const WeightMap& map) const {
  for (const auto& [name, file] : map) {
    const std::optional<Place> place = Find(name);
    if (!place || shards[place->shard].file != file) {
      return absl::InvalidArgumentError(
          fmt::format("{}: tensor {} is not in {}", index.string(), Quoted(name), file));
    }
  }
  return absl::OkStatus();
}

Checkpoint::Checkpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}
Checkpoint::~Checkpoint() = default;

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& directory) {
  const std::filesystem::path root(directory);
  std::error_code error;
  if (!std::filesystem::is_directory(root, error)) {
    return absl::NotFoundError(fmt::format("model directory {}: no such directory", directory));
  }
  auto state = std::make_unique<State>();
  WeightMap map;
  std::vector<std::string> files;
  // As in transformers, the single file comes first.
  if (std::filesystem::exists(root / kSingleFile, error)) {
    files = {kSingleFile};
  } else if (std::filesystem::exists(root / kIndexFile, error)) {
    BALEEN_ASSIGN_OR_RETURN(map, ReadIndex(root / kIndexFile));
    for (const auto& [name, file] : map) files.push_back(file);
    std::ranges::sort(files);
    files.erase(std::unique(files.begin(), files.end()), files.end());
  } else {
    return absl::NotFoundError(
        fmt::format("{}: neither {} nor {}", directory, kSingleFile, kIndexFile));
  }
  if (files.size() > kShardsMax) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {} weight files, the limit is {}", directory, files.size(), kShardsMax));
  }
  for (const std::string& file : files) {
    BALEEN_ASSIGN_OR_RETURN(Shard shard, OpenShard(root, file));
    state->shards.push_back(std::move(shard));
  }
  BALEEN_RETURN_IF_ERROR(state->IndexTensors(root));
  BALEEN_RETURN_IF_ERROR(state->CheckWeightMap(root / kIndexFile, map));
  return std::unique_ptr<Checkpoint>(new Checkpoint(std::move(state)));
}

bool Checkpoint::Has(std::string_view name) const { return state_->Find(name).has_value(); }

absl::StatusOr<TensorView> Checkpoint::Get(std::string_view name) const {
  const std::optional<Place> place = state_->Find(name);
  if (!place) {
    return absl::NotFoundError(fmt::format("tensor {} is missing", Quoted(name)));
  }
  const TensorEntry& entry = state_->entry(*place);
  const std::span<const std::byte> file = state_->shards[place->shard].mapping.bytes();
  return TensorView{entry.dtype, entry.shape, file.subspan(entry.begin, entry.end - entry.begin)};
}

absl::StatusOr<TensorView> Checkpoint::Get(std::string_view name,
                                           std::initializer_list<DType> dtypes,
                                           std::initializer_list<std::uint64_t> shape) const {
  BALEEN_ASSIGN_OR_RETURN(const TensorView view, Get(name));
  const auto fail = [&](const std::string& why) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: tensor {} {}", state_->shards[state_->Find(name)->shard].file, Quoted(name), why));
  };
  if (dtypes.size() > 0 && std::ranges::find(dtypes, view.dtype) == dtypes.end()) {
    std::vector<std::string_view> wanted;
    for (const DType dtype : dtypes) {
      wanted.push_back(DTypeName(dtype));
    }
    return fail(fmt::format("is {}, the config asks for {}", DTypeName(view.dtype),
                            fmt::join(wanted, " or ")));
  }
  if (!std::ranges::equal(view.shape, shape)) {
    return fail(fmt::format("has shape [{}], the config asks for [{}]", fmt::join(view.shape, ", "),
                            fmt::join(shape, ", ")));
  }
  return view;
}

void Checkpoint::Release(std::string_view name) const {
  const std::optional<Place> place = state_->Find(name);
  if (!place) return;
  const TensorEntry& entry = state_->entry(*place);
  const Mapping& mapping = state_->shards[place->shard].mapping;
  mapping.Release(mapping.bytes().subspan(entry.begin, entry.end - entry.begin));
}

std::span<const std::string> Checkpoint::names() const { return state_->names; }

std::uint64_t Checkpoint::bytes() const { return state_->bytes; }

namespace {

// SHA-256 over pieces. Each piece goes in with its length in front, so that no two lists of pieces
// hash alike.
class Digester {
 public:
  Digester() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    ok_ = context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1;
  }

  void Add(std::span<const std::byte> piece) {
    AddLength(piece.size());
    Update(piece.data(), piece.size());
  }
  void Add(std::string_view text) { Add(std::as_bytes(std::span(text))); }

  // A part of a file, whose pages do not stay in memory.
  void Add(const Mapping& mapping, std::span<const std::byte> piece) {
    constexpr std::size_t kTogether = 1u << 20;
    AddLength(piece.size());
    for (; !piece.empty(); piece = piece.subspan(std::min(kTogether, piece.size()))) {
      const std::span<const std::byte> part = piece.first(std::min(kTogether, piece.size()));
      Update(part.data(), part.size());
      mapping.Release(part);
    }
  }

  absl::StatusOr<std::string> Finish() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest = {};
    unsigned int bytes = 0;
    ok_ = ok_ && EVP_DigestFinal_ex(context_.get(), digest.data(), &bytes) == 1;
    if (!ok_) return absl::InternalError("OpenSSL cannot compute SHA-256");
    return fmt::format("{:02x}", fmt::join(digest.begin(), digest.begin() + bytes, ""));
  }

 private:
  void AddLength(std::uint64_t size) {
    std::array<unsigned char, 8> length = {};
    for (std::size_t i = 0; i < length.size(); ++i) {
      length[i] = static_cast<unsigned char>(size >> (8 * i));
    }
    Update(length.data(), length.size());
  }

  void Update(const void* data, std::size_t bytes) {
    ok_ = ok_ && EVP_DigestUpdate(context_.get(), data, bytes) == 1;
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
  bool ok_ = false;
};

void AddShard(Digester& digester, const Shard& shard) {
  const std::span<const std::byte> file = shard.mapping.bytes();
  digester.Add(shard.file);
  if (file.size() <= kDigestWholeFileBytesMax) {
    digester.Add(shard.mapping, file);
    return;
  }
  // The header ends where the first tensor begins; a file of this size has one, or its header alone
  // is over the limit.
  const std::uint64_t header_end = shard.entries.empty() ? file.size() : shard.entries[0].begin;
  digester.Add(fmt::format("{} bytes, sampled", file.size()));
  digester.Add(shard.mapping, file.first(header_end));
  for (const TensorEntry& entry : shard.entries) {
    const std::uint64_t length = std::min(entry.end - entry.begin, kDigestSampleBytes);
    const std::uint64_t begin = entry.begin + (entry.end - entry.begin - length) / 2;
    digester.Add(shard.mapping, file.subspan(begin, length));
  }
}

}  // namespace

absl::StatusOr<std::string> CheckpointDigest(const std::string& directory,
                                             const Checkpoint& checkpoint) {
  Digester digester;
  digester.Add("baleen checkpoint 1");
  for (const char* file : {"config.json", "generation_config.json"}) {
    const absl::StatusOr<Mapping> mapping = Mapping::Open(std::filesystem::path(directory) / file);
    if (!mapping.ok() && !absl::IsNotFound(mapping.status())) return mapping.status();
    if (mapping.ok() && mapping->bytes().size() > kConfigBytesMax) {
      return absl::InvalidArgumentError(fmt::format("{}/{}: {} bytes, the limit is {}", directory,
                                                    file, mapping->bytes().size(),
                                                    kConfigBytesMax));
    }
    digester.Add(file);
    if (mapping.ok()) digester.Add(mapping->bytes());
  }
  for (const Shard& shard : checkpoint.state_->shards) AddShard(digester, shard);
  return digester.Finish();
}

}  // namespace baleen::worker
