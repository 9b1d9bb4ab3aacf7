#include "worker/expert_parallel/nccl/nccl_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

constexpr const char* kFile = "libnccl.so.2";
constexpr int kVersionMin = NCCL_VERSION(2, 28, 0);

absl::StatusOr<NcclLibrary> Load() {
  // Never unloaded: NCCL has threads of its own.
  void* const file = dlopen(kFile, RTLD_NOW | RTLD_LOCAL);
  if (file == nullptr) {
    return absl::FailedPreconditionError(fmt::format("NCCL can not be loaded: {}", dlerror()));
  }
  absl::Status missing;
  const auto find = [&](const char* name, auto& call) {
    call = reinterpret_cast<std::remove_reference_t<decltype(call)>>(dlsym(file, name));
    if (call == nullptr && missing.ok()) {
      missing = absl::FailedPreconditionError(fmt::format("{} has no {}", kFile, name));
    }
  };
  NcclLibrary nccl;
  find("ncclGetVersion", nccl.get_version);
  find("ncclGetUniqueId", nccl.get_unique_id);
  find("ncclCommInitRankConfig", nccl.comm_init_rank_config);
  find("ncclCommGetAsyncError", nccl.comm_get_async_error);
  find("ncclCommAbort", nccl.comm_abort);
  find("ncclGetErrorString", nccl.get_error_string);
  find("ncclGetLastError", nccl.get_last_error);
  find("ncclGroupStart", nccl.group_start);
  find("ncclGroupEnd", nccl.group_end);
  find("ncclSend", nccl.send);
  find("ncclRecv", nccl.receive);
  BALEEN_RETURN_IF_ERROR(missing);
  if (nccl.get_version(&nccl.version) != ncclSuccess || nccl.version < kVersionMin) {
    return absl::FailedPreconditionError(
        fmt::format("{} is of version {}, must be {} or newer", kFile, nccl.version, kVersionMin));
  }
  return nccl;
}

}  // namespace

absl::StatusOr<const NcclLibrary*> LoadNccl() {
  static const auto* const loaded = new absl::StatusOr<NcclLibrary>(Load());
  if (!loaded->ok()) return loaded->status();
  return &**loaded;
}

absl::StatusOr<std::string> MakeNcclId() {
  BALEEN_ASSIGN_OR_RETURN(const NcclLibrary* nccl, LoadNccl());
  ncclUniqueId id;
  if (const ncclResult_t result = nccl->get_unique_id(&id); result != ncclSuccess) {
    return absl::UnavailableError(fmt::format("NCCL makes no id for a group: {}: {}",
                                              nccl->get_error_string(result),
                                              nccl->get_last_error(nullptr)));
  }
  return std::string(id.internal, sizeof(id.internal));
}

}  // namespace baleen::worker
