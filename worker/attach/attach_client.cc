#include "worker/attach/attach_client.h"

#include <set>
#include <string_view>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/log.h"

namespace baleen::worker {

AttachClient::AttachClient(const AttachOptions& options, Discovery& discovery, Inbox& inbox,
                           const metrics::WorkerMetrics& metrics, const CacheFeed* cache)
    : options_(options),
      discovery_(discovery),
      parts_{.identity = {}, .inbox = inbox, .load = nullptr, .metrics = metrics, .cache = cache} {}

AttachClient::~AttachClient() { Stop(); }

void AttachClient::Start(WorkerIdentity identity, std::function<LoadReport()> load) {
  BALEEN_CHECK(!thread_.joinable(), "a client is started once");
  parts_.identity = std::move(identity);
  parts_.load = std::move(load);
  thread_ = std::thread([this] { Run(); });
}

void AttachClient::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stopped_.notify_all();
  if (thread_.joinable()) thread_.join();
  // No new links from here on. All stop at the same time; the destructors wait.
  std::map<std::string, std::unique_ptr<Link>> links;
  {
    std::lock_guard lock(mutex_);
    links.swap(links_);
  }
  for (auto& [address, link] : links) link->Stop();
}

void AttachClient::Deliver(LinkId link, StepReport report) {
  std::lock_guard lock(mutex_);
  for (auto& [address, candidate] : links_) {
    if (candidate->Deliver(link, report)) return;
  }
}

void AttachClient::Run() {
  while (true) {
    const absl::StatusOr<std::vector<std::string>> addresses = discovery_.Resolve();
    if (addresses.ok()) {
      Apply(*addresses);
    } else {
      log::Warning("cannot resolve the routers", {{"status", addresses.status().ToString()}});
    }
    std::unique_lock lock(mutex_);
    stopped_.wait_for(lock, absl::ToChronoMilliseconds(options_.resolve_every),
                      [this] { return stopping_; });
    if (stopping_) return;
  }
}

void AttachClient::Apply(const std::vector<std::string>& addresses) {
  const std::set<std::string_view> named(addresses.begin(), addresses.end());
  std::vector<std::unique_ptr<Link>> ended;  // destroyed after the lock
  std::lock_guard lock(mutex_);
  for (auto it = links_.begin(); it != links_.end();) {
    const auto entry = it++;
    Link& link = *entry->second;
    const bool over = named.contains(entry->first) ? !link.Resume() : link.Retire();
    if (!over) continue;
    ended.push_back(std::move(entry->second));
    links_.erase(entry);
  }
  for (const std::string& address : addresses) {
    if (links_.size() >= options_.routers_max) break;
    std::unique_ptr<Link>& link = links_[address];
    if (link == nullptr) link = std::make_unique<Link>(address, options_.link, parts_);
  }
}

}  // namespace baleen::worker
