#include "worker/expert_parallel/nccl/nccl_collectives.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/cuda/copy_rows.h"
#include "observability/base/check.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

static_assert(kNcclIdBytes == NCCL_UNIQUE_ID_BYTES);

// A wait looks without pause for as long as an exchange of a few tokens takes, then leaves the core
// to others.
constexpr absl::Duration kWatch = absl::Microseconds(200);
constexpr absl::Duration kPause = absl::Microseconds(50);

absl::Status CudaStatus(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text =
      fmt::format("CUDA: {}: {} ({})", what, cudaGetErrorString(error), cudaGetErrorName(error));
  cudaGetLastError();  // a later call does not report it again
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
  return absl::UnavailableError(text);
}

absl::Status WasAborted() { return absl::CancelledError("NCCL: the exchange was aborted"); }

// Looks at something again and again.
class Watch {
 public:
  absl::Duration passed() const {
    return absl::FromChrono(std::chrono::steady_clock::now() - begin_);
  }
  void Pause() const {
    if (passed() < kWatch) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(absl::ToChronoMicroseconds(kPause));
    }
  }

 private:
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace

absl::StatusOr<JoinedNccl> NcclCollectives::Join(const NcclOptions& options) {
  if (options.id.size() != NCCL_UNIQUE_ID_BYTES) {
    return absl::InvalidArgumentError(fmt::format("NCCL: the id of a group has {} bytes, not {}",
                                                  options.id.size(), NCCL_UNIQUE_ID_BYTES));
  }
  BALEEN_ASSIGN_OR_RETURN(const NcclLibrary* nccl, LoadNccl());
  std::unique_ptr<NcclCollectives> made(new NcclCollectives(options, *nccl));
  BALEEN_RETURN_IF_ERROR(made->Allocate());
  BALEEN_RETURN_IF_ERROR(made->JoinCommunicator());
  BALEEN_RETURN_IF_ERROR(made->Connect());
  std::byte* const buffers = made->buffers_;
  return JoinedNccl{.collectives = std::move(made), .buffers = buffers};
}

NcclCollectives::~NcclCollectives() {
  cudaSetDevice(options_.device);
  if (comm_ != nullptr) nccl_.comm_abort(comm_);
  for (Lane& lane : lanes_) {
    if (lane.stream != nullptr) cudaStreamSynchronize(lane.stream);
    if (lane.places_staged != nullptr) cudaFreeHost(lane.places_staged);
    if (lane.places != nullptr) cudaFree(lane.places);
    if (lane.done != nullptr) cudaEventDestroy(lane.done);
    if (lane.model_was_here != nullptr) cudaEventDestroy(lane.model_was_here);
    if (lane.stream != nullptr) cudaStreamDestroy(lane.stream);
  }
  if (buffers_ != nullptr) cudaFree(buffers_);
}

absl::Status NcclCollectives::Allocate() {
  const std::string on = fmt::format("GPU {}", options_.device);
  BALEEN_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(options_.device), on));
  int least = 0;
  int greatest = 0;
  BALEEN_RETURN_IF_ERROR(CudaStatus(cudaDeviceGetStreamPriorityRange(&least, &greatest), on));
  // Connect sends a byte to each rank, and gets one.
  const std::size_t bytes = std::max(options_.buffer_bytes, std::size_t(options_.ranks) * 2);
  const std::size_t places_bytes = options_.rows_copied_max * sizeof(std::int32_t);
  const std::string buffers = fmt::format("{} bytes of {} for the all-to-all's buffers", bytes, on);
  BALEEN_RETURN_IF_ERROR(
      CudaStatus(cudaMalloc(reinterpret_cast<void**>(&buffers_), bytes), buffers));
  for (Lane& lane : lanes_) {
    const cudaError_t made[] = {
        // What peers wait for goes first.
        cudaStreamCreateWithPriority(&lane.stream, cudaStreamNonBlocking, greatest),
        cudaEventCreateWithFlags(&lane.model_was_here, cudaEventDisableTiming),
        cudaEventCreateWithFlags(&lane.done, cudaEventDisableTiming),
        cudaMallocHost(reinterpret_cast<void**>(&lane.places_staged), places_bytes),
        cudaMalloc(reinterpret_cast<void**>(&lane.places), places_bytes)};
    for (const cudaError_t error : made) BALEEN_RETURN_IF_ERROR(CudaStatus(error, buffers));
  }
  return absl::OkStatus();
}

absl::Status NcclCollectives::JoinCommunicator() {
  ncclUniqueId id;
  std::memcpy(id.internal, options_.id.data(), sizeof(id.internal));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t result =
      nccl_.comm_init_rank_config(&comm_, options_.ranks, id, options_.rank, &config);
  return Settle(result, "joining the communicator", options_.join_max);
}

// The first message between two ranks makes their connection, for which both must be there.
absl::Status NcclCollectives::Connect() {
  std::vector<DeviceBytes> sends;
  std::vector<DeviceBytes> receives;
  for (std::int32_t peer = 0; peer < options_.ranks; ++peer) {
    sends.push_back({.begin = buffers_ + peer, .size = 1});
    receives.push_back({.begin = buffers_ + options_.ranks + peer, .size = 1});
  }
  BALEEN_RETURN_IF_ERROR(Send(0, sends, receives, options_.join_max));
  BALEEN_ASSIGN_OR_RETURN(const bool connected, Await(0, options_.join_max));
  if (connected) return absl::OkStatus();
  return absl::DeadlineExceededError(
      fmt::format("NCCL: connecting with {} ranks took longer than {}", options_.ranks,
                  absl::FormatDuration(options_.join_max)));
}

absl::Status NcclCollectives::FollowModel(int number) {
  const Lane& lane = lanes_[number];
  BALEEN_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(lane.model_was_here, options_.model_stream),
                                    "following the model's stream"));
  return CudaStatus(cudaStreamWaitEvent(lane.stream, lane.model_was_here, 0),
                    "following the model's stream");
}

absl::Status NcclCollectives::CopyRows(int number, const RowCopy& copy) {
  const Lane& lane = lanes_[number];
  const std::size_t count = copy.places.size();
  BALEEN_CHECK(count <= options_.rows_copied_max, "rows that there is room for");
  const std::string what = fmt::format("copying {} rows of {} bytes", count, copy.row_bytes);
  // The lane's copy before this one was awaited: its places are no longer needed.
  std::memcpy(lane.places_staged, copy.places.data(), count * sizeof(std::int32_t));
  BALEEN_RETURN_IF_ERROR(
      CudaStatus(cudaMemcpyAsync(lane.places, lane.places_staged, count * sizeof(std::int32_t),
                                 cudaMemcpyHostToDevice, lane.stream),
                 what));
  const bool gather = copy.kind == RowCopy::Kind::kGather;
  const cudaError_t error = kernels::cuda::CopyRows({.from = copy.from,
                                                     .to = copy.to,
                                                     .from_rows = gather ? lane.places : nullptr,
                                                     .to_rows = gather ? nullptr : lane.places,
                                                     .count = static_cast<std::int64_t>(count),
                                                     .row_bytes = copy.row_bytes,
                                                     .stream = lane.stream});
  BALEEN_RETURN_IF_ERROR(CudaStatus(error, what));
  return CudaStatus(cudaEventRecord(lane.done, lane.stream), what);
}

absl::Status NcclCollectives::Exchange(int lane, std::span<const DeviceBytes> sends,
                                       std::span<const DeviceBytes> receives) {
  return Send(lane, sends, receives, options_.wait_max);
}

absl::Status NcclCollectives::Send(int number, std::span<const DeviceBytes> sends,
                                   std::span<const DeviceBytes> receives, absl::Duration limit) {
  constexpr const char* kWhat = "an exchange";
  const Lane& lane = lanes_[number];
  if (aborted_) return WasAborted();
  if (const ncclResult_t begun = nccl_.group_start(); begun != ncclSuccess) {
    return Failed(begun, kWhat);
  }
  // A group that was begun is ended, whatever becomes of what is in it.
  ncclResult_t result = ncclSuccess;
  const auto note = [&](ncclResult_t of_call) {
    if (result == ncclSuccess && of_call != ncclInProgress) result = of_call;
  };
  for (std::int32_t peer = 0; peer < options_.ranks; ++peer) {
    const DeviceBytes& to = sends[peer];
    const DeviceBytes& from = receives[peer];
    if (to.size > 0) note(nccl_.send(to.begin, to.size, ncclUint8, peer, comm_, lane.stream));
    if (from.size > 0) {
      note(nccl_.receive(from.begin, from.size, ncclUint8, peer, comm_, lane.stream));
    }
  }
  const ncclResult_t ended = nccl_.group_end();
  if (result != ncclSuccess) return Failed(result, kWhat);
  BALEEN_RETURN_IF_ERROR(Settle(ended, kWhat, limit));
  return CudaStatus(cudaEventRecord(lane.done, lane.stream), kWhat);
}

absl::StatusOr<bool> NcclCollectives::Await(int number, absl::Duration limit) {
  const Watch watch;
  while (true) {
    if (aborted_) return WasAborted();
    const cudaError_t error = cudaEventQuery(lanes_[number].done);
    if (error == cudaSuccess) return true;
    if (error != cudaErrorNotReady) return CudaStatus(error, "an exchange");
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = nccl_.comm_get_async_error(comm_, &state);
    if (asked != ncclSuccess) return Failed(asked, "an exchange");
    if (state != ncclSuccess && state != ncclInProgress) return Failed(state, "an exchange");
    if (watch.passed() >= limit) return false;
    watch.Pause();
  }
}

void NcclCollectives::Abort() { aborted_ = true; }

absl::Status NcclCollectives::Settle(ncclResult_t result, const char* what, absl::Duration limit) {
  const Watch watch;
  while (result == ncclInProgress) {
    if (aborted_) return WasAborted();
    if (watch.passed() >= limit) {
      return absl::DeadlineExceededError(fmt::format("NCCL: {} took longer than {}, rank {} of {}",
                                                     what, absl::FormatDuration(limit),
                                                     options_.rank, options_.ranks));
    }
    watch.Pause();
    const ncclResult_t asked = nccl_.comm_get_async_error(comm_, &result);
    if (asked != ncclSuccess) return Failed(asked, what);
  }
  return result == ncclSuccess ? absl::OkStatus() : Failed(result, what);
}

absl::Status NcclCollectives::Failed(ncclResult_t result, const char* what) const {
  return absl::UnavailableError(fmt::format(
      "NCCL: {}: {}: {}", what, nccl_.get_error_string(result), nccl_.get_last_error(comm_)));
}

}  // namespace baleen::worker
