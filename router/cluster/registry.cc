#include "router/cluster/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "observability/base/log.h"
#include "observability/base/status_macros.h"

namespace baleen::router {
namespace {

constexpr std::size_t kEosTokensMax = 64;
constexpr std::size_t kArithmeticBytesMax = 64;
constexpr std::size_t kMetricsAddressBytesMax = 256;
constexpr std::size_t kModelDirectoryBytesMax = 4096;
constexpr std::size_t kDigestDigits = 64;
constexpr std::uint32_t kVocabularyMax = 1u << 20;
constexpr std::uint32_t kSequencesMax = 1u << 16;
constexpr std::uint32_t kStepTokensMax = 1u << 20;

absl::Status Invalid(std::string_view field, std::string_view is, std::string_view limit) {
  return absl::InvalidArgumentError(fmt::format("{} {}; it must be {}", field, is, limit));
}

absl::Status CheckBytes(std::string_view field, std::string_view value, std::size_t bytes_max) {
  if (value.size() <= bytes_max) return absl::OkStatus();
  return Invalid(field, fmt::format("has {} bytes", value.size()),
                 fmt::format("at most {}", bytes_max));
}

absl::Status CheckRange(std::string_view field, std::uint64_t value, std::uint64_t max) {
  if (value >= 1 && value <= max) return absl::OkStatus();
  return Invalid(field, fmt::format("is {}", value), fmt::format("1 to {}", max));
}

bool IsNameChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '-' || c == '_';
}

bool IsHexDigit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

absl::Status CheckModelFields(const ModelIdentity& model) {
  BALEEN_RETURN_IF_ERROR(CheckBytes("model.name", model.name, contract::kModelNameBytesMax));
  BALEEN_RETURN_IF_ERROR(CheckBytes("model.arithmetic", model.arithmetic, kArithmeticBytesMax));
  if (model.name.empty()) return Invalid("model.name", "is empty", "a name");
  if (model.arithmetic.empty()) return Invalid("model.arithmetic", "is empty", "a version");
  if (model.digest.size() != kDigestDigits || !std::ranges::all_of(model.digest, IsHexDigit)) {
    return Invalid("model.digest", "is malformed", "64 lower-case hexadecimal digits");
  }
  BALEEN_RETURN_IF_ERROR(
      CheckRange("model.context_tokens", model.context_tokens, contract::kContextTokensMax));
  BALEEN_RETURN_IF_ERROR(
      CheckRange("model.vocabulary_size", model.vocabulary_size, kVocabularyMax));
  BALEEN_RETURN_IF_ERROR(
      CheckRange("model.kv_block_bytes", model.kv_block_bytes, std::uint64_t{1} << 40));
  if (model.eos_token_ids.size() > kEosTokensMax) {
    return Invalid("model.eos_token_ids", fmt::format("has {} ids", model.eos_token_ids.size()),
                   fmt::format("at most {}", kEosTokensMax));
  }
  for (const std::int32_t id : model.eos_token_ids) {
    if (id < 0 || static_cast<std::uint32_t>(id) >= model.vocabulary_size) {
      return Invalid("model.eos_token_ids", fmt::format("has {}", id),
                     fmt::format("below the vocabulary size {}", model.vocabulary_size));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckWorkerInfo(const WorkerInfo& info) {
  BALEEN_RETURN_IF_ERROR(CheckBytes("worker", info.name, contract::kWorkerNameBytesMax));
  if (info.name.empty() || !std::ranges::all_of(info.name, IsNameChar)) {
    return Invalid("worker", "is malformed", "letters, digits, '.', '-', '_'");
  }
  if (info.incarnation == 0) return Invalid("incarnation", "is 0", "random");
  BALEEN_RETURN_IF_ERROR(CheckModelFields(info.model));
  BALEEN_RETURN_IF_ERROR(CheckRange("kv_blocks_total", info.kv_blocks_total, 0xffffffff));
  BALEEN_RETURN_IF_ERROR(CheckRange("sequences_max", info.sequences_max, kSequencesMax));
  BALEEN_RETURN_IF_ERROR(CheckRange("step_tokens_max", info.step_tokens_max, kStepTokensMax));
  BALEEN_RETURN_IF_ERROR(CheckBytes("data_plane_address", info.data_plane_address,
                                    contract::kDataPlaneAddressBytesMax));
  if (info.data_plane_address.empty() && info.role != Role::kMixed) {
    return Invalid("data_plane_address", "is empty",
                   fmt::format("set on a {} worker", ToString(info.role)));
  }
  BALEEN_RETURN_IF_ERROR(
      CheckBytes("metrics_address", info.metrics_address, kMetricsAddressBytesMax));
  return CheckBytes("model_directory", info.model_directory, kModelDirectoryBytesMax);
}

Registry::Registry(const RegistryOptions& options, const Clock& clock, Dispatcher& dispatcher)
    : options_(options),
      clock_(clock),
      dispatcher_(dispatcher),
      view_(std::make_shared<const ClusterView>()) {}

absl::StatusOr<WorkerId> Registry::Attach(WorkerInfo info, std::uint32_t protocol_version,
                                          WorkerLink& link) {
  if (protocol_version != contract::kProtocolVersion) {
    return absl::FailedPreconditionError(
        fmt::format("worker speaks protocol version {}, this router {}", protocol_version,
                    contract::kProtocolVersion));
  }
  BALEEN_RETURN_IF_ERROR(CheckWorkerInfo(info));
  BALEEN_RETURN_IF_ERROR(CheckName(info));
  BALEEN_RETURN_IF_ERROR(CheckModel(info));
  Replace(info);
  if (entries_.size() >= options_.workers_max) {
    return absl::ResourceExhaustedError(
        fmt::format("{} workers are attached, limit {}", entries_.size(), options_.workers_max));
  }
  const WorkerId id{++ids_given_};
  auto shared = std::make_shared<const WorkerInfo>(std::move(info));
  entries_.emplace(id, Entry{.info = shared, .link = &link, .heard = clock_.Monotonic()});
  log::Info("worker attached", {{"worker", shared->name},
                                {"role", ToString(shared->role)},
                                {"model", shared->model.name},
                                {"kv_blocks", shared->kv_blocks_total}});
  dispatcher_.OnAttached(id, shared, link);
  Publish();
  return id;
}

absl::Status Registry::CheckName(const WorkerInfo& info) const {
  const absl::Duration now = clock_.Monotonic();
  for (const auto& [id, entry] : entries_) {
    if (entry.info->name != info.name || entry.info->incarnation == info.incarnation) continue;
    if (entry.suspect || now - entry.heard > options_.lease) continue;
    // The same words each time: a worker that tries again and again logs them once.
    return absl::AlreadyExistsError(fmt::format(
        "another process is attached as worker {}; it holds the name until its stream ends or it "
        "is silent for {} ms",
        info.name, absl::ToInt64Milliseconds(options_.lease)));
  }
  return absl::OkStatus();
}

absl::Status Registry::CheckModel(const WorkerInfo& info) const {
  const auto served = std::ranges::find(options_.models, info.model.name, &ServedModel::name);
  if (served == options_.models.end()) {
    std::string names;
    for (const ServedModel& model : options_.models) {
      names += fmt::format("{}'{}'", names.empty() ? "" : ", ", model.name);
    }
    return absl::FailedPreconditionError(fmt::format(
        "model '{}' is not served by this router, which has {}", info.model.name, names));
  }
  if (served->token_ids > info.model.vocabulary_size) {
    return absl::FailedPreconditionError(fmt::format(
        "model '{}': the router's tokenizer has ids up to {}, the worker's vocabulary only {}",
        info.model.name, served->token_ids - 1, info.model.vocabulary_size));
  }
  for (const auto& [id, entry] : entries_) {
    const ModelIdentity& other = entry.info->model;
    if (entry.info->name == info.name || other.name != info.model.name) continue;
    if (other == info.model) continue;
    const bool same_weights = other.digest == info.model.digest;
    return absl::FailedPreconditionError(fmt::format(
        "model '{}' is not the one of worker {}: {}", info.model.name, entry.info->name,
        !same_weights
            ? fmt::format("digest {:.12}..., there {:.12}...", info.model.digest, other.digest)
        : other.arithmetic != info.model.arithmetic
            ? fmt::format("arithmetic {}, there {}", info.model.arithmetic, other.arithmetic)
            : std::string("context, vocabulary, eos tokens or KV block size differ")));
  }
  return absl::OkStatus();
}

void Registry::Replace(const WorkerInfo& info) {
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto& [id, entry] = *it++;
    if (entry.info->name != info.name) continue;
    // Its stream broke and this side has not noticed yet, or it has been silent for a lease.
    entry.link->Close(
        absl::AlreadyExistsError(fmt::format("worker {} has attached again", entry.info->name)));
    Lose(id, "it has attached again");
  }
}

bool Registry::Heard(WorkerId worker) {
  const auto it = entries_.find(worker);
  if (it == entries_.end()) return false;
  Entry& entry = it->second;
  entry.heard = clock_.Monotonic();
  if (entry.suspect) {
    entry.suspect = false;
    log::Info("worker speaks again", {{"worker", entry.info->name}});
    dispatcher_.OnSuspect(worker, false);
    Publish();
  }
  return true;
}

void Registry::Detach(WorkerId worker, std::string_view why) {
  if (!entries_.contains(worker)) return;
  Lose(worker, why);
  Publish();
}

void Registry::Lose(WorkerId worker, std::string_view why) {
  const auto it = entries_.find(worker);
  log::Warning("worker lost", {{"worker", it->second.info->name}, {"why", why}});
  entries_.erase(it);
  dispatcher_.OnLost(worker, why);
}

void Registry::Tick() {
  const absl::Duration now = clock_.Monotonic();
  const absl::Duration lost_after = contract::kLeasesUntilLost * options_.lease;
  if (now - ticked_ > options_.lease / 2) {
    log::Warning("this process was stopped; workers get a fresh lease",
                 {{"stopped_ms", absl::ToInt64Milliseconds(now - ticked_)}});
    for (auto& [id, entry] : entries_) entry.heard = now;
  }
  ticked_ = now;
  for (auto it = entries_.begin(); it != entries_.end();) {
    auto& [id, entry] = *it++;
    const absl::Duration silence = now - entry.heard;
    if (silence > lost_after) {
      const std::string why = fmt::format("silent for {} ms", absl::ToInt64Milliseconds(silence));
      entry.link->Close(absl::DeadlineExceededError(why));
      Lose(id, why);
    } else if (silence > options_.lease && !entry.suspect) {
      entry.suspect = true;
      log::Warning("worker is silent", {{"worker", entry.info->name}});
      dispatcher_.OnSuspect(id, true);
    }
  }
  Publish();
}

std::uint32_t Registry::Attached(Role role) const {
  return static_cast<std::uint32_t>(std::ranges::count_if(entries_, [role](const auto& entry) {
    return entry.second.info->role == role && !entry.second.suspect;
  }));
}

std::shared_ptr<const ClusterView> Registry::view() const {
  const std::lock_guard lock(view_mutex_);
  return view_;
}

void Registry::Publish() {
  auto view = std::make_shared<const ClusterView>(dispatcher_.view());
  const std::lock_guard lock(view_mutex_);
  view_ = std::move(view);
}

}  // namespace baleen::router
