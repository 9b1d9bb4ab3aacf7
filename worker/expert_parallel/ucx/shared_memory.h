// Memory that processes of one machine have in common. It has no name that could stay behind:
// whoever may look into the creator's /proc entry, as processes of the same user may, can open it.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <optional>

#include "absl/status/statusor.h"

namespace baleen::worker {

class SharedMemory {
 public:
  // Zeros, taken when first touched; at `at` if that is not null, in place of what is mapped there.
  // Its size is sealed: nobody can take it away under a reader.
  static absl::StatusOr<SharedMemory> Create(std::size_t bytes, std::byte* at = nullptr);

  // What process `pid` has created as `fd`. nullopt if that is not there, can not be opened, is not
  // sealed or has another size: neither number need be true.
  static std::optional<SharedMemory> Open(pid_t pid, int fd, std::size_t bytes);

  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&&) = delete;
  ~SharedMemory();

  std::byte* data() const { return data_; }
  int fd() const { return fd_; }  // of this process, which others may be told

 private:
  SharedMemory(int fd, std::size_t bytes) : fd_(fd), bytes_(bytes) {}
  bool Map(std::byte* at);

  int fd_;
  std::size_t bytes_;
  std::byte* data_ = nullptr;
};

}  // namespace baleen::worker
