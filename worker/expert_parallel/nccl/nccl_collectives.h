// Collectives over NCCL and CUDA: a communicator, a stream for each lane, and the buffers, all made
// at start.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/time/time.h"
#include "worker/expert_parallel/all_to_all.h"
#include "worker/expert_parallel/nccl/collectives.h"
#include "worker/expert_parallel/nccl/nccl_library.h"
#include "worker/expert_parallel/nccl/pending_nccl_endpoint.h"

namespace baleen::worker {

struct NcclOptions {
  std::string id;  // of MakeNcclId, the same on all ranks of the epoch
  std::int32_t rank = 0;
  std::int32_t ranks = 1;
  int device = 0;                       // the GPU's number in this process; one rank each
  cudaStream_t model_stream = nullptr;  // where rows and outputs are made
  std::size_t buffer_bytes = 0;         // NcclBufferBytes
  std::size_t rows_copied_max = 0;      // rows_max * slots_per_row
  absl::Duration join_max = absl::Seconds(30);
  absl::Duration wait_max = absl::Seconds(5);  // for NCCL to take an exchange in hand
};

// Made and used on one thread, but Abort. After an error or Abort NCCL may go on waiting on the
// GPU: only destruction ends that, and comes before anything that waits for the whole GPU. NCCL may
// make it wait for ranks of the same node that do not end their communicator too.
class NcclCollectives final : public Collectives {
 public:
  // Joins the communicator, and connects with all ranks so that no step has to. Errors:
  // FAILED_PRECONDITION (no NCCL), DEADLINE_EXCEEDED (not all ranks have come within join_max),
  // RESOURCE_EXHAUSTED (no memory for the buffers), UNAVAILABLE (NCCL or CUDA failed).
  static absl::StatusOr<JoinedNccl> Join(const NcclOptions& options);
  ~NcclCollectives() override;

  absl::Status FollowModel(int lane) override;
  absl::Status CopyRows(int lane, const RowCopy& copy) override;
  absl::Status Exchange(int lane, std::span<const DeviceBytes> sends,
                        std::span<const DeviceBytes> receives) override;
  absl::StatusOr<bool> Await(int lane, absl::Duration limit) override;
  void Abort() override;

 private:
  struct Lane {
    cudaStream_t stream = nullptr;
    cudaEvent_t model_was_here = nullptr;
    cudaEvent_t done = nullptr;
    std::int32_t* places_staged = nullptr;  // [rows_copied_max], pinned host memory
    std::int32_t* places = nullptr;         // likewise, device memory
  };

  NcclCollectives(const NcclOptions& options, const NcclLibrary& nccl)
      : options_(options), nccl_(nccl) {}

  absl::Status Allocate();
  absl::Status JoinCommunicator();
  absl::Status Connect();
  // Until NCCL has done what it said is in progress.
  absl::Status Settle(ncclResult_t result, const char* what, absl::Duration limit);
  absl::Status Send(int lane, std::span<const DeviceBytes> sends,
                    std::span<const DeviceBytes> receives, absl::Duration limit);
  absl::Status Failed(ncclResult_t result, const char* what) const;

  const NcclOptions options_;
  const NcclLibrary& nccl_;
  ncclComm_t comm_ = nullptr;
  std::byte* buffers_ = nullptr;
  std::array<Lane, kLanes> lanes_;
  std::atomic<bool> aborted_ = false;
};

}  // namespace baleen::worker
