// NCCL, loaded when the first group asks for it: a worker without GPUs runs without the library.
#pragma once

#include <nccl.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace baleen::worker {

// The calls that we make, by NCCL's names.
struct NcclLibrary {
  decltype(&ncclGetVersion) get_version = nullptr;
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) comm_init_rank_config = nullptr;
  decltype(&ncclCommGetAsyncError) comm_get_async_error = nullptr;
  decltype(&ncclCommAbort) comm_abort = nullptr;
  decltype(&ncclGetErrorString) get_error_string = nullptr;
  decltype(&ncclGetLastError) get_last_error = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
  decltype(&ncclSend) send = nullptr;
  decltype(&ncclRecv) receive = nullptr;

  int version = 0;  // as NCCL_VERSION_CODE: 22809 is 2.28.9
};

// libnccl.so.2 as the dynamic linker finds it; once for the process, thread-safe.
// FAILED_PRECONDITION says what is missing or too old (before 2.28).
absl::StatusOr<const NcclLibrary*> LoadNccl();

// What all ranks of an epoch join under: made by one of them, and published to all.
absl::StatusOr<std::string> MakeNcclId();

}  // namespace baleen::worker
