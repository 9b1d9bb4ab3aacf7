// The router's front gate: how many requests, and how many bytes of them, may be inside at once.
// What does not fit is refused now, with a hint when to come back, rather than left to time out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"

namespace baleen::router {

struct AdmissionOptions {
  std::uint32_t requests_max = 1024;                   // waiting and running
  std::uint64_t bytes_max = std::uint64_t{256} << 20;  // of their messages, as received
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
    Ticket(Admission* home, std::uint64_t bytes, absl::Duration since)
        : home_(home), bytes_(bytes), since_(since) {}

    Admission* home_ = nullptr;  // null: no place
    std::uint64_t bytes_ = 0;
    absl::Duration since_;
  };

  Admission(const AdmissionOptions& options, const Clock& clock);

  // kQueueFull names the limit that is reached; kDraining after StopAdmitting.
  absl::StatusOr<Ticket> Admit(std::uint64_t bytes);

  // For a drain: nothing is admitted from now on.
  void StopAdmitting();

  std::size_t admitted() const;

  // When a refused client should try again: about the time until one of those inside leaves, from
  // 50 ms to 10 s.
  absl::Duration RetryAfter() const;

 private:
  void Leave(std::uint64_t bytes, absl::Duration since);
  absl::Duration RetryAfterLocked() const;

  const AdmissionOptions options_;
  const Clock& clock_;

  mutable std::mutex mutex_;
  // Guarded by mutex_:
  bool admitting_ = true;
  std::uint32_t requests_ = 0;
  std::uint64_t bytes_ = 0;
  double mean_stay_s_ = 1.0;  // moving average
};

}  // namespace baleen::router
