#include "worker/attach/attach_client.h"

#include <algorithm>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/log.h"

namespace baleen::worker {

AttachClient::AttachClient(const AttachOptions& options, Discovery& discovery, Inbox& inbox,
                           const metrics::WorkerMetrics& metrics)
    : options_(options),
      discovery_(discovery),
      parts_{.identity = {}, .inbox = inbox, .load = nullptr, .metrics = metrics} {}

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
  const auto count = static_cast<std::ptrdiff_t>(std::min(addresses.size(), options_.routers_max));
  std::vector<std::unique_ptr<Link>> gone;  // destroyed, and waited for, after the lock
  std::lock_guard lock(mutex_);
  std::map<std::string, std::unique_ptr<Link>> kept;
  for (auto it = addresses.begin(); it != addresses.begin() + count; ++it) {
    std::unique_ptr<Link>& link = kept[*it];
    if (link != nullptr) continue;  // named twice
    if (const auto found = links_.find(*it); found != links_.end()) {
      link = std::move(found->second);
    } else {
      link = std::make_unique<Link>(*it, options_.link, parts_);
    }
  }
  for (auto& [address, link] : links_) {
    if (link != nullptr) gone.push_back(std::move(link));
  }
  links_ = std::move(kept);
}

}  // namespace baleen::worker
