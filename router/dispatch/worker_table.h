// The attached workers as dispatch sees them: load as reported, and the work that this router
// itself has there.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>

#include "router/dispatch/links.h"
#include "router/policy/cluster_view.h"
#include "router/policy/prefix/prefix_index.h"
#include "router/policy/prefix/recent_prompts.h"

namespace baleen::router {

// Work that a worker has been given.
struct Grant {
  WorkerId worker;
  Work work;
  std::uint64_t reports = 0;  // that had come from the worker by then
};

// One thread.
class WorkerTable {
 public:
  // `link` is borrowed until Remove.
  void Add(WorkerId id, std::shared_ptr<const WorkerInfo> info, WorkerLink& link);
  void Remove(WorkerId id);
  bool Contains(WorkerId id) const { return entries_.contains(id); }

  // Work sent before it counts as reported. What was on its way when the worker took the load is
  // not in it: until the next report, a step later, only the floor of `own` counts it.
  void SetLoad(WorkerId id, const LoadReport& load);
  void SetSuspect(WorkerId id, bool suspect);

  // What the worker has in its cache. No effect when it is gone.
  void TakeCacheEvents(WorkerId id, const CacheEventsFrame& events);
  // The worker was sent a prompt of these blocks, and will have them if it keeps any.
  void SentPrompt(WorkerId id, std::shared_ptr<const BlockHashes> hashes, absl::Duration now);
  // For RouteQuery::cached_blocks; valid until the next call of anything.
  std::span<const std::uint16_t> MatchPrefix(std::span<const contract::BlockHash> hashes,
                                             absl::Duration now);
  // To be called now and then: forgets, a part at a time, what lost workers had.
  void Sweep() { prefixes_.Sweep(); }

  // Precondition: attached.
  Grant Take(WorkerId id, const Work& work);
  // The work has ended; it counts no more. A worker reports its load without a request before it
  // says that the request has ended, so the latest report does not have it. No effect when the
  // worker is gone.
  void GiveBack(const Grant& grant);

  // Drops the frame when the worker is gone.
  void Send(WorkerId id, RouterFrame frame);

  // Precondition: attached.
  const WorkerInfo& info(WorkerId id) const;
  // "" when the worker is gone.
  std::string NameOf(WorkerId id) const;

  const ClusterView& view() const { return view_; }

 private:
  struct Entry {
    WorkerLink* link = nullptr;
    std::uint64_t reports = 0;
    bool keeps_blocks = false;  // it has reported some
  };

  WorkerView* Find(WorkerId id);

  ClusterView view_;
  PrefixIndex prefixes_;
  RecentPrompts recent_;
  std::map<WorkerId, Entry> entries_;
};

}  // namespace baleen::router
