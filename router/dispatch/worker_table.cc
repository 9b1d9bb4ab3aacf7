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
  view_.workers.push_back({.id = id, .info = std::move(info)});
  links_.emplace(id, &link);
}

void WorkerTable::Remove(WorkerId id) {
  std::erase_if(view_.workers, [id](const WorkerView& worker) { return worker.id == id; });
  links_.erase(id);
}

void WorkerTable::SetLoad(WorkerId id, const LoadReport& load) {
  if (WorkerView* worker = Find(id)) {
    worker->load = load;
    worker->since_report = {};
  }
}

void WorkerTable::SetSuspect(WorkerId id, bool suspect) {
  if (WorkerView* worker = Find(id)) worker->suspect = suspect;
}

void WorkerTable::Take(WorkerId id, const Work& work) {
  WorkerView* worker = Find(id);
  BALEEN_CHECK(worker != nullptr, "work goes to attached workers");
  worker->own += work;
  worker->since_report += work;
}

void WorkerTable::GiveBack(WorkerId id, const Work& work) {
  if (WorkerView* worker = Find(id)) worker->own -= work;
}

void WorkerTable::Send(WorkerId id, RouterFrame frame) {
  const auto it = links_.find(id);
  if (it != links_.end()) it->second->Send(std::move(frame));
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
