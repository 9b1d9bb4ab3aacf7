// The leader of a running group as a tool sees it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "security/certificates/certificate_store.h"
#include "worker/group/messages.h"

namespace baleen::cli {

// What a leader says of its group.
struct GroupDescription {
  std::string group;        // "prefill-0"
  std::uint64_t epoch = 0;  // 0 = not formed
  worker::GroupPlacement placement;
  worker::ExpertCounts counts;  // of the placement's layers and experts
};

// Errors are the leader's statuses, and name it and their code; UNAVAILABLE when it can not be
// reached, DEADLINE_EXCEEDED after `within`.
class GroupClient {
 public:
  // Does not connect yet. `address` is host:port or unix-abstract:NAME; `certificates` are of the
  // cluster's inside, null: plaintext.
  explicit GroupClient(const std::string& address,
                       const std::shared_ptr<security::CertificateStore>& certificates = nullptr);
  GroupClient(GroupClient&&) noexcept;
  ~GroupClient();

  // DATA_LOSS: the answer is not within the limits of a group, or does not fit itself.
  absl::StatusOr<GroupDescription> Describe(absl::Duration within) const;
  // The version as which the group adopts it, between steps. FAILED_PRECONDITION: not formed, or it
  // has not adopted the last one yet.
  absl::StatusOr<std::uint64_t> Place(const worker::GroupPlacement& placement,
                                      absl::Duration within) const;

 private:
  struct Stub;
  std::unique_ptr<Stub> stub_;
};

}  // namespace baleen::cli
