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
    : member_(options, [this] { OnMemberNews(); }),
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

std::optional<absl::StatusOr<GroupPlacement>> GroupRuntime::TakeJoined() {
  while (std::optional<GroupEvent> event = member_.NextEvent()) {
    if (auto* joined = std::get_if<Joined>(&*event)) return std::move(joined->placement);
    if (auto* refused = std::get_if<Refused>(&*event)) return std::move(refused->why);
  }
  return std::nullopt;
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
    leaving_ = leaving_ || absl::IsCancelled(why);
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

// On the member's threads: the runtime's own may be busy reading weights, and peers wait for what
// the engine still holds.
void GroupRuntime::OnMemberNews() {
  std::shared_ptr<GroupEndpoint> live;
  {
    const std::lock_guard lock(mutex_);
    live = live_;
  }
  if (live != nullptr) {
    if (const std::optional<absl::Status> lost = member_.WaitingLost()) live->Abort(*lost);
  }
  Wake();
}

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
    if (Stopping()) break;
    DropBroken();
    status = HandleEvents();
    if (status.ok()) status = MakeReady();
    if (status.ok()) status = PrepareNext();
    ReportCounts();
    if (parts_->on_tick) parts_->on_tick();
  }
  if (const auto live = SetLive(nullptr); live != nullptr) {
    live->Abort(absl::CancelledError("this rank leaves the group"));
  }
  if (status.ok()) {
    member_.Stop();
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    failed_ = status;
  }
  parts_->inbox.Wake();
  if (parts_->on_failed) parts_->on_failed(status);
}

// For good: it was asked to, or its engine is.
bool GroupRuntime::Stopping() const {
  const std::lock_guard lock(mutex_);
  return stopping_ || leaving_;
}

// The one before.
std::shared_ptr<GroupEndpoint> GroupRuntime::SetLive(std::shared_ptr<GroupEndpoint> live) {
  const std::lock_guard lock(mutex_);
  return std::exchange(live_, std::move(live));
}

void GroupRuntime::WaitForNews() {
  std::unique_lock lock(mutex_);
  news_.wait_for(lock, absl::ToChronoMicroseconds(kCountsEvery),
                 [this] { return has_news_ || stopping_ || leaving_; });
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
  epoch_ = event.epoch;
  epoch_open_ = true;
  if (pending_ == nullptr || live_ != nullptr) {
    member_.Broken(event.epoch, absl::FailedPreconditionError("this rank was not ready"));
    return absl::OkStatus();
  }
  absl::StatusOr<std::shared_ptr<GroupEndpoint>> connected =
      std::exchange(pending_, nullptr)->Connect(event.epoch, event.endpoint_addresses);
  if (!connected.ok()) {
    log::Error("cannot connect to the group",
               {{"epoch", event.epoch}, {"status", connected.status().ToString()}});
    member_.Broken(event.epoch, connected.status());
    return absl::OkStatus();
  }
  SetLive(*std::move(connected));
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
  log::Info("group lost", {{"epoch", event.epoch}, {"status", event.why.ToString()}});
  if (parts_->reports != nullptr) parts_->reports->OnLost();
  owes_ready_ = true;
  epoch_open_ = false;
  if (live_ == nullptr) return absl::OkStatus();
  live_->Abort(event.why);
  std::shared_ptr<GroupEndpoint> unused;
  const std::lock_guard lock(mutex_);
  // Else the engine says when it has let go.
  if (formed_.has_value()) {
    formed_.reset();
    engine_has_endpoint_ = false;
  }
  if (!engine_has_endpoint_) unused = std::exchange(live_, nullptr);
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
  SetLive(nullptr);
  member_.Broken(epoch_, *broken);
}

// Ready follows Joined and Lost, once the engine has let go of the last endpoint.
absl::Status GroupRuntime::MakeReady() {
  {
    const std::lock_guard lock(mutex_);
    if (engine_has_endpoint_) return absl::OkStatus();
  }
  // After an epoch its Lost comes first, whoever has ended it.
  if (!owes_ready_ || epoch_open_ || live_ != nullptr) return absl::OkStatus();
  BALEEN_RETURN_IF_ERROR(LoadTarget());
  if (Stopping()) return absl::OkStatus();
  if (pending_ == nullptr) {
    BALEEN_ASSIGN_OR_RETURN(pending_, parts_->make_endpoint());
  }
  owes_ready_ = false;
  member_.Ready(target_.version, pending_->address());
  return absl::OkStatus();
}

// Without steps: everything at once, on this thread, unless it is to stop.
absl::Status GroupRuntime::LoadTarget() {
  {
    const std::lock_guard lock(mutex_);
    if (prepared_change_.has_value()) AdoptLocked();
  }
  while (std::optional<LayerChange> change = NextChange()) {
    if (Stopping()) return absl::OkStatus();
    BALEEN_RETURN_IF_ERROR(Prepare(*change));
    const std::lock_guard lock(mutex_);
    prepared_change_ = *std::move(change);
    AdoptLocked();
  }
  loaded_.version = target_.version;
  return absl::OkStatus();
}

// While the group serves: one layer, which waits for the engine to adopt it.
absl::Status GroupRuntime::PrepareNext() {
  if (live_ == nullptr) return absl::OkStatus();
  {
    const std::lock_guard lock(mutex_);
    if (prepared_change_.has_value()) return absl::OkStatus();
  }
  if (loaded_.version == target_.version) return absl::OkStatus();
  std::optional<LayerChange> change = NextChange();
  if (!change.has_value()) {
    loaded_.version = target_.version;
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

// The first layer that is not as it is to be. Nothing waits to be adopted.
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
