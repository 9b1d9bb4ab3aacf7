#include "worker/group/runtime/group_runtime.h"

#include <utility>
#include <variant>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

// How often expert loads go to the leader.
constexpr absl::Duration kCountsEvery = absl::Seconds(5);

}  // namespace

GroupRuntime::GroupRuntime(GroupMemberOptions options)
    : member_(options, [this] { Wake(); }),
      ranks_(static_cast<std::int32_t>(options.terms.ranks)) {}

GroupRuntime::~GroupRuntime() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  news_.notify_all();
  if (thread_.joinable()) thread_.join();
  member_.Stop();
}

void GroupRuntime::Run(GroupPlacement loaded, const GroupRuntimeParts& parts) {
  BALEEN_CHECK(!parts_.has_value(), "a runtime runs once");
  parts_.emplace(parts);
  loaded_ = std::move(loaded);
  target_ = loaded_;
  owes_ready_ = true;
  const ExpertLoad& load = parts.experts.expert_load();
  reported_.assign(load.layers(), std::vector<std::uint64_t>(load.experts()));
  thread_ = std::thread([this] { Loop(); });
}

std::optional<absl::Status> GroupRuntime::Outcome() const {
  const std::lock_guard lock(mutex_);
  if (formed_once_ || !failed_.ok()) return failed_;
  return std::nullopt;
}

// The engine's side -------------------------------------------------------------------------------

std::optional<FormedGroup> GroupRuntime::TakeFormed() {
  const std::lock_guard lock(mutex_);
  return std::exchange(formed_, std::nullopt);
}

void GroupRuntime::OnBroken(std::uint64_t /*epoch*/, const absl::Status& why) {
  {
    const std::lock_guard lock(mutex_);
    engine_has_endpoint_ = false;
    broken_ = why;
  }
  Wake();
}

std::uint32_t GroupRuntime::Prepared() const {
  const std::lock_guard lock(mutex_);
  return prepared_;
}

void GroupRuntime::Adopt() {
  {
    const std::lock_guard lock(mutex_);
    AdoptLocked();
  }
  Wake();
}

void GroupRuntime::OnStep() {
  if (parts_->reports != nullptr) parts_->reports->OnStep();
}

void GroupRuntime::AdoptLocked() {
  BALEEN_CHECK(prepared_change_.has_value(), "what is adopted was prepared");
  parts_->experts.Adopt();
  loaded_.layers[prepared_change_->layer] = std::move(prepared_change_->placement);
  prepared_change_.reset();
}

// The runtime's thread ----------------------------------------------------------------------------

void GroupRuntime::Wake() {
  {
    const std::lock_guard lock(mutex_);
    has_news_ = true;
  }
  news_.notify_all();
}

void GroupRuntime::Loop() {
  absl::Status status;
  while (status.ok()) {
    WaitForNews();
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    DropBroken();
    status = HandleEvents();
    if (status.ok()) status = MakeReady();
    if (status.ok()) status = PrepareNext();
    ReportCounts();
    if (parts_->on_tick) parts_->on_tick();
  }
  if (live_ != nullptr) live_->Abort(absl::CancelledError("this rank leaves the group"));
  live_.reset();
  if (status.ok()) return;
  {
    const std::lock_guard lock(mutex_);
    failed_ = status;
  }
  parts_->inbox.Wake();
  if (parts_->on_failed) parts_->on_failed(status);
}

void GroupRuntime::WaitForNews() {
  std::unique_lock lock(mutex_);
  news_.wait_for(lock, absl::ToChronoMicroseconds(kCountsEvery),
                 [this] { return has_news_ || stopping_; });
  has_news_ = false;
}

absl::Status GroupRuntime::HandleEvents() {
  while (std::optional<GroupEvent> event = member_.NextEvent()) {
    BALEEN_RETURN_IF_ERROR(std::visit([this](const auto& body) { return Handle(body); }, *event));
  }
  return absl::OkStatus();
}

absl::Status GroupRuntime::Handle(const Joined& event) {
  target_ = event.placement;
  owes_ready_ = true;
  return absl::OkStatus();
}

absl::Status GroupRuntime::Handle(const Formed& event) {
  BALEEN_CHECK(pending_ != nullptr && live_ == nullptr, "an epoch begins with a fresh endpoint");
  epoch_ = event.epoch;
  absl::StatusOr<std::shared_ptr<GroupEndpoint>> connected =
      std::exchange(pending_, nullptr)->Connect(event.epoch, event.endpoint_addresses);
  if (!connected.ok()) {
    log::Error("cannot connect to the group",
               {{"epoch", event.epoch}, {"status", connected.status().ToString()}});
    member_.Broken(event.epoch, connected.status());
    return absl::OkStatus();
  }
  live_ = *std::move(connected);
  if (parts_->reports != nullptr) parts_->reports->OnFormed(epoch_, event.placement_version);
  log::Info("group formed",
            {{"epoch", event.epoch}, {"ranks", ranks_}, {"placement", event.placement_version}});
  {
    const std::lock_guard lock(mutex_);
    formed_ = FormedGroup{.epoch = event.epoch, .endpoint = live_};
    engine_has_endpoint_ = true;
    broken_.reset();
    prepared_ = 0;
    formed_once_ = true;
  }
  parts_->inbox.Wake();
  return absl::OkStatus();
}

absl::Status GroupRuntime::Handle(const Lost& event) {
  log::Warning("group lost", {{"epoch", event.epoch}, {"status", event.why.ToString()}});
  if (parts_->reports != nullptr) parts_->reports->OnLost();
  owes_ready_ = true;
  if (live_ == nullptr) return absl::OkStatus();
  live_->Abort(event.why);
  const std::lock_guard lock(mutex_);
  // Else the engine says when it has let go.
  if (formed_.has_value()) {
    formed_.reset();
    engine_has_endpoint_ = false;
  }
  if (!engine_has_endpoint_) live_.reset();
  return absl::OkStatus();
}

absl::Status GroupRuntime::Handle(const NewPlacement& event) {
  target_ = event.placement;
  if (live_ == nullptr) owes_ready_ = true;
  return absl::OkStatus();
}

// The engine has let go of the endpoint: it is destroyed here, on this thread.
void GroupRuntime::DropBroken() {
  std::optional<absl::Status> broken;
  {
    const std::lock_guard lock(mutex_);
    broken = std::exchange(broken_, std::nullopt);
  }
  if (!broken.has_value()) return;
  live_.reset();
  member_.Broken(epoch_, *broken);
}

// Ready follows Joined and Lost, once the engine has let go of the last endpoint.
absl::Status GroupRuntime::MakeReady() {
  {
    const std::lock_guard lock(mutex_);
    if (engine_has_endpoint_) return absl::OkStatus();
  }
  if (!owes_ready_ || live_ != nullptr) return absl::OkStatus();
  BALEEN_RETURN_IF_ERROR(LoadTarget());
  if (pending_ == nullptr) {
    BALEEN_ASSIGN_OR_RETURN(pending_, parts_->make_endpoint());
  }
  owes_ready_ = false;
  member_.Ready(target_.version, pending_->address());
  return absl::OkStatus();
}

// Without steps: everything at once, on this thread.
absl::Status GroupRuntime::LoadTarget() {
  const std::lock_guard lock(mutex_);
  if (prepared_change_.has_value()) AdoptLocked();
  while (const std::optional<LayerChange> change = NextChange()) {
    BALEEN_RETURN_IF_ERROR(Prepare(*change));
    prepared_change_ = *change;
    AdoptLocked();
  }
  loaded_.version = target_.version;
  return absl::OkStatus();
}

// While the group serves: one layer, which waits for the engine to adopt it.
absl::Status GroupRuntime::PrepareNext() {
  if (live_ == nullptr) return absl::OkStatus();
  std::optional<LayerChange> change;
  {
    const std::lock_guard lock(mutex_);
    if (loaded_.version == target_.version || prepared_change_.has_value()) {
      return absl::OkStatus();
    }
    change = NextChange();
    if (!change.has_value()) loaded_.version = target_.version;
  }
  if (!change.has_value()) {
    log::Info("placement adopted", {{"version", target_.version}});
    if (parts_->reports != nullptr) parts_->reports->OnPlacement(target_.version);
    member_.Adopted(target_.version);
    return absl::OkStatus();
  }
  BALEEN_RETURN_IF_ERROR(Prepare(*change));
  {
    const std::lock_guard lock(mutex_);
    ++prepared_;
    prepared_change_ = std::move(change);
  }
  parts_->inbox.Wake();
  return absl::OkStatus();
}

absl::Status GroupRuntime::Prepare(const LayerChange& change) {
  return parts_->experts.Prepare(static_cast<std::int32_t>(change.layer), change.placement);
}

// The first layer that is not as it is to be.
std::optional<GroupRuntime::LayerChange> GroupRuntime::NextChange() const {
  for (std::size_t layer = 0; layer < target_.layers.size(); ++layer) {
    if (loaded_.layers[layer] == target_.layers[layer]) continue;
    return LayerChange{.layer = layer, .placement = target_.layers[layer]};
  }
  return std::nullopt;
}

void GroupRuntime::ReportCounts() {
  const ExpertLoad& load = parts_->experts.expert_load();
  ExpertCounts fresh = reported_;
  bool any = false;
  for (std::int32_t layer = 0; layer < load.layers(); ++layer) {
    for (std::int32_t expert = 0; expert < load.experts(); ++expert) {
      std::uint64_t& reported = reported_[layer][expert];
      const std::uint64_t now = load.At(layer, expert);
      fresh[layer][expert] = now - reported;
      any = any || now > reported;
      reported = now;
    }
  }
  if (any) member_.ReportCounts(fresh);
}

}  // namespace baleen::worker
