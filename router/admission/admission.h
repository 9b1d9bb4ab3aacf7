// The router's front gate: how many requests, and how many bytes of them, may be inside at once.
// What does not fit is refused now, with a hint when to come back, rather than left to time out.
//
// No tenant fills it: while others are about, a tenant may take a place only while it has fewer
// than kSharePerFree times the places that are free, and the same for bytes. So one that floods
// gets 4/5 of it, two get 4/9 each, and some is free whatever their number; alone it may have
// everything.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "proto/contract/limits.h"
#include "router/admission/memory_ladder.h"

namespace baleen::router {

struct AdmissionOptions {
  std::uint32_t requests_max = 1024;                   // waiting and running
  std::uint64_t bytes_max = std::uint64_t{256} << 20;  // of their messages, as received
};

// Places, and bytes, of one tenant for each free one.
inline constexpr std::uint64_t kSharePerFree = 4;
// A tenant is about for so long after it has asked.
inline constexpr absl::Duration kTenantAbout = absl::Minutes(1);

struct AdmissionRequest {
  std::uint64_t bytes = 0;  // of its message
  std::string_view tenant;  // "": anonymous
  std::uint32_t priority = contract::kPriorityDefault;
};

// Thread-safe. Outlives its tickets.
class Admission {
 public:
  // A place inside; gives itself back. Move-only.
  class Ticket {
   public:
    Ticket() = default;
    Ticket(Ticket&& other) noexcept;
    Ticket& operator=(Ticket&& other) noexcept;
    ~Ticket();

   private:
    friend class Admission;
    Ticket(Admission* home, const AdmissionRequest& request, absl::Duration since)
        : home_(home), bytes_(request.bytes), tenant_(request.tenant), since_(since) {}

    Admission* home_ = nullptr;  // null: no place
    std::uint64_t bytes_ = 0;
    std::string tenant_;
    absl::Duration since_;
  };

  Admission(const AdmissionOptions& options, const Clock& clock);

  // kQueueFull names the limit that is reached; kDraining after StopAdmitting.
  absl::StatusOr<Ticket> Admit(const AdmissionRequest& request);
  absl::StatusOr<Ticket> Admit(std::uint64_t bytes) {
    return Admit(AdmissionRequest{.bytes = bytes});
  }

  // For a drain: nothing is admitted from now on.
  void StopAdmitting();

  // How short memory is: decides who is admitted until it is set again.
  void SetMemoryLevel(MemoryLevel level);
  // Replies that wait for their readers grew by so many bytes, or shrank.
  void AddReplyBytes(std::int64_t bytes) {
    reply_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  }
  // Bytes of requests inside and of replies that wait for their readers.
  std::uint64_t accounted_bytes() const;

  std::size_t admitted() const;

  // When a refused client should try again: about the time until one of those inside leaves, from
  // 50 ms to 10 s.
  absl::Duration RetryAfter() const;

 private:
  struct Share {
    std::uint32_t requests = 0;
    std::uint64_t bytes = 0;
  };

  void Leave(const Ticket& ticket);
  // What is in the way of a request; nullopt: nothing.
  std::optional<std::string> ObstacleLocked(const AdmissionRequest& request) const;
  bool OthersAreAboutLocked(std::string_view tenant) const;
  absl::Duration RetryAfterLocked() const;

  const AdmissionOptions options_;
  const Clock& clock_;
  std::atomic<std::int64_t> reply_bytes_ = 0;

  mutable std::mutex mutex_;
  // Guarded by mutex_:
  bool admitting_ = true;
  MemoryLevel memory_level_ = MemoryLevel::kNormal;
  std::uint32_t requests_ = 0;
  std::uint64_t bytes_ = 0;
  std::unordered_map<std::string, Share> shares_;  // of tenants that are inside
  std::string asked_latest_;                       // the tenant that asked last
  absl::Duration asked_latest_at_ = -absl::InfiniteDuration();
  absl::Duration asked_by_others_ = -absl::InfiniteDuration();  // when any other one did
  double mean_stay_s_ = 1.0;                                    // moving average
};

}  // namespace baleen::router
