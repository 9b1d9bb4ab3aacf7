// The attached workers as dispatch sees them: load as reported, and the work that this router
// itself has there.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "router/dispatch/links.h"
#include "router/policy/cluster_view.h"

namespace baleen::router {

// One thread.
class WorkerTable {
 public:
  // `link` is borrowed until Remove.
  void Add(WorkerId id, std::shared_ptr<const WorkerInfo> info, WorkerLink& link);
  void Remove(WorkerId id);
  bool Contains(WorkerId id) const { return links_.contains(id); }

  void SetLoad(WorkerId id, const LoadReport& load);  // work sent before it counts as reported
  void SetSuspect(WorkerId id, bool suspect);

  void Take(WorkerId id, const Work& work);
  void GiveBack(WorkerId id, const Work& work);  // no effect when the worker is gone

  // Drops the frame when the worker is gone.
  void Send(WorkerId id, RouterFrame frame);

  // Precondition: attached.
  const WorkerInfo& info(WorkerId id) const;
  // "" when the worker is gone.
  std::string NameOf(WorkerId id) const;

  const ClusterView& view() const { return view_; }

 private:
  WorkerView* Find(WorkerId id);

  ClusterView view_;
  std::map<WorkerId, WorkerLink*> links_;
};

}  // namespace baleen::router
