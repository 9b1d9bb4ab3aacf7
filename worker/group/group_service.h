// The leader of a group as a process sees it: the gRPC service baleen.v1.Group over a Roster.
//
// Members are few and say little, so one lock is enough; gRPC's threads bring messages, one thread
// of the service's own brings time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "security/certificates/certificate_store.h"
#include "worker/group/messages.h"
#include "worker/group/rules/roster.h"

namespace baleen::worker {

struct GroupServiceOptions {
  std::string listen = "127.0.0.1:0";  // host:port, 0 = any; or unix-abstract:name
  // Of the cluster's inside, with an authority: who calls needs one of its certificates. Null:
  // plaintext.
  std::shared_ptr<security::CertificateStore> certificates;
  RosterOptions roster;
  PlacementShape shape;
  std::vector<LayerPlacement> layers;                // at the start
  absl::Duration hello_wait_max = absl::Seconds(5);  // from the call to its Hello
  absl::Duration closing_wait_max = absl::Seconds(2);
  absl::Duration tick = absl::Milliseconds(50);
  const Clock* clock = &SystemClock();
};

class GroupService {
 public:
  // Listens and serves. INVALID_ARGUMENT or ALREADY_EXISTS names the address, or what does not fit.
  static absl::StatusOr<std::unique_ptr<GroupService>> Start(GroupServiceOptions options);
  // Ends all streams: for the members the leader is gone.
  ~GroupService();

  // What to dial: host:port, or unix-abstract:name.
  const std::string& address() const { return address_; }

  // As the leader sees it now. Any thread.
  GroupView View() const;

 private:
  class Edge;
  GroupService(std::unique_ptr<Edge> edge, std::string address);

  const std::unique_ptr<Edge> edge_;
  const std::string address_;
};

}  // namespace baleen::worker
