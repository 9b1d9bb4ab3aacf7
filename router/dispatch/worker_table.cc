#include "router/dispatch/worker_table.h"

#include <algorithm>
#include <utility>

#include "observability/base/check.h"

namespace baleen::router {

WorkerView* WorkerTable::Find(WorkerId id) {
  const auto it = std::ranges::lower_bound(view_.workers, id, {}, &WorkerView::id);
  return it != view_.workers.end() && it->id == id ? &*it : nullptr;
}

void WorkerTable::Add(WorkerId id, std::shared_ptr<const WorkerInfo> info, WorkerLink& link) {
  BALEEN_CHECK(view_.workers.empty() || view_.workers.back().id < id, "worker ids count up");
  const std::uint64_t blocks = info->kv_blocks_total;
  view_.workers.push_back({.id = id,
                           .slot = prefixes_.AddRank(blocks).value_or(kPrefixSlotsMax),
                           .facts = FactsOf(*info),
                           .info = std::move(info)});
  entries_.emplace(id, Entry{.link = &link});
}

void WorkerTable::Remove(WorkerId id) {
  if (const WorkerView* worker = Find(id); worker != nullptr && worker->slot < kPrefixSlotsMax) {
    prefixes_.RemoveRank(worker->slot);
  }
  std::erase_if(view_.workers, [id](const WorkerView& worker) { return worker.id == id; });
  entries_.erase(id);
}

void WorkerTable::SetLoad(WorkerId id, const LoadReport& load) {
  if (WorkerView* worker = Find(id)) {
    worker->load = load;
    worker->since_report = {};
    ++entries_.at(id).reports;
  }
}

void WorkerTable::TakeCacheEvents(WorkerId id, const CacheEventsFrame& events) {
  WorkerView* worker = Find(id);
  if (worker == nullptr || worker->slot >= kPrefixSlotsMax) return;
  if (events.cleared) {
    prefixes_.RemoveRank(worker->slot);
    worker->slot = prefixes_.AddRank(worker->info->kv_blocks_total).value_or(kPrefixSlotsMax);
    if (worker->slot >= kPrefixSlotsMax) return;
  }
  entries_.at(id).keeps_blocks = true;
  prefixes_.Store(worker->slot, events.stored);
  prefixes_.Evict(worker->slot, events.evicted);
}

void WorkerTable::SentPrompt(WorkerId id, std::shared_ptr<const BlockHashes> hashes,
                             absl::Duration now) {
  const WorkerView* worker = Find(id);
  if (worker == nullptr || !entries_.at(id).keeps_blocks) return;
  recent_.Add(worker->slot, std::move(hashes), now);
}

std::span<const std::uint16_t> WorkerTable::MatchPrefix(std::span<const contract::BlockHash> hashes,
                                                        absl::Duration now) {
  const std::span<std::uint16_t> depths = prefixes_.Match(hashes);
  recent_.Raise(hashes, now, depths);
  return depths;
}

void WorkerTable::SetSuspect(WorkerId id, bool suspect) {
  if (WorkerView* worker = Find(id)) worker->suspect = suspect;
}

Grant WorkerTable::Take(WorkerId id, const Work& work) {
  WorkerView* worker = Find(id);
  BALEEN_CHECK(worker != nullptr, "work goes to attached workers");
  worker->own += work;
  worker->since_report += work;
  return {.worker = id, .work = work, .reports = entries_.at(id).reports};
}

void WorkerTable::GiveBack(const Grant& grant) {
  WorkerView* worker = Find(grant.worker);
  if (worker == nullptr) return;
  worker->own -= grant.work;
  if (entries_.at(grant.worker).reports == grant.reports) worker->since_report -= grant.work;
}

void WorkerTable::Send(WorkerId id, RouterFrame frame) {
  const auto it = entries_.find(id);
  if (it != entries_.end()) it->second.link->Send(std::move(frame));
}

const WorkerInfo& WorkerTable::info(WorkerId id) const {
  const WorkerView* worker = view_.Find(id);
  BALEEN_CHECK(worker != nullptr, "the worker is attached");
  return *worker->info;
}

std::string WorkerTable::NameOf(WorkerId id) const {
  const WorkerView* worker = view_.Find(id);
  return worker == nullptr ? std::string() : worker->info->name;
}

}  // namespace baleen::router
