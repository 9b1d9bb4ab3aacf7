// Attaches this worker to all routers: one Link for each address that Discovery finds. A router
// that leaves the answer may be draining: it is not dialled again, but its stream lives until it
// ends.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "worker/attach/discovery.h"
#include "worker/attach/link.h"
#include "worker/attach/wire.h"
#include "worker/engine/inbox.h"
#include "worker/engine/messages.h"

namespace baleen::worker {

struct AttachOptions {
  LinkOptions link;
  absl::Duration resolve_every = absl::Seconds(5);
  // Links at most, of those that have left the answer too. New addresses beyond it are left out, in
  // the order of the answer.
  std::size_t routers_max = 64;
};

class AttachClient final : public OutputSink {
 public:
  // Borrowed: `discovery`, `inbox` and `cache` (may be null) outlive the client. `load` is called
  // on any thread, from Start on.
  AttachClient(const AttachOptions& options, Discovery& discovery, Inbox& inbox,
               const metrics::WorkerMetrics& metrics, const CacheFeed* cache = nullptr);
  // Stops.
  ~AttachClient() override;

  // Dials, and keeps on resolving and dialling, from threads of its own. Call once.
  void Start(WorkerIdentity identity, std::function<LoadReport()> load);

  // Sends what waits, bounded by StreamOptions::flush_wait, and ends all streams.
  void Stop();

  void Deliver(LinkId link, StepReport report) override;

 private:
  void Run();
  void Apply(const std::vector<std::string>& addresses);

  const AttachOptions options_;
  Discovery& discovery_;
  StreamParts parts_;

  std::mutex mutex_;
  std::condition_variable stopped_;
  // Guarded by mutex_:
  std::map<std::string, std::unique_ptr<Link>> links_;  // by address
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace baleen::worker
