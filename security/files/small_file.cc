#include "security/files/small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "observability/base/status_macros.h"

namespace baleen::security {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }

 private:
  const int number_;
};

absl::Status FromErrno(const std::string& path, std::string_view doing) {
  const std::string what = fmt::format("cannot {} {}: {}", doing, path, std::strerror(errno));
  if (errno == ENOENT || errno == ENOTDIR) return absl::NotFoundError(what);
  if (errno == EACCES || errno == EPERM) return absl::PermissionDeniedError(what);
  if (errno == EEXIST) return absl::AlreadyExistsError(what);
  return absl::InvalidArgumentError(what);
}

std::int64_t Nanoseconds(const timespec& time) {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

absl::StatusOr<FileSignature> ToSignature(const std::string& path, const struct stat& status) {
  if (!S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(fmt::format("{} is not a plain file", path));
  }
  return FileSignature{.device = status.st_dev,
                       .inode = status.st_ino,
                       .bytes = static_cast<std::uint64_t>(status.st_size),
                       .modified_ns = Nanoseconds(status.st_mtim),
                       .changed_ns = Nanoseconds(status.st_ctim),
                       .mode = status.st_mode & 07777u};
}

absl::StatusOr<FileSignature> SignatureOfOpen(const std::string& path, const Descriptor& file) {
  struct stat status {};
  if (::fstat(file.number(), &status) != 0) return FromErrno(path, "read");
  return ToSignature(path, status);
}

absl::Status WriteAll(const Descriptor& file, const std::string& path, std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = ::write(file.number(), text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return FromErrno(path, "write");
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
  if (::fsync(file.number()) != 0) return FromErrno(path, "write");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<FileSignature> SignatureOf(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return FromErrno(path, "read");
  return ToSignature(path, status);
}

absl::StatusOr<SmallFile> ReadSmallFile(const std::string& path, std::size_t bytes_max) {
  // Not blocking: a pipe in the file's place must not hold up who looks.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.number() < 0) return FromErrno(path, "read");
  BALEEN_ASSIGN_OR_RETURN(const FileSignature before, SignatureOfOpen(path, file));
  if (before.bytes > bytes_max) {
    return absl::InvalidArgumentError(
        fmt::format("{} has {} bytes, the limit is {}", path, before.bytes, bytes_max));
  }
  SmallFile read{.text = std::string(before.bytes, '\0'), .signature = before};
  std::size_t have = 0;
  while (have < read.text.size()) {
    const ssize_t got = ::read(file.number(), read.text.data() + have, read.text.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FromErrno(path, "read");
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  BALEEN_ASSIGN_OR_RETURN(const FileSignature after, SignatureOfOpen(path, file));
  if (have != read.text.size() || before != after) {
    return absl::UnavailableError(fmt::format("{} was written to while it was read", path));
  }
  return read;
}

bool ReadableByOthers(const FileSignature& signature) { return (signature.mode & S_IROTH) != 0; }

absl::Status WriteSmallFile(const NewFile& file) {
  // In the same folder, for rename to be one step; of this process, for two writers not to mix.
  const std::string beside = fmt::format("{}.new-{}", file.path, ::getpid());
  ::unlink(beside.c_str());
  {
    const Descriptor written(
        ::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, file.mode));
    if (written.number() < 0) return FromErrno(beside, "write");
    if (const absl::Status status = WriteAll(written, beside, file.text); !status.ok()) {
      ::unlink(beside.c_str());
      return status;
    }
  }
  // link refuses what exists, rename replaces it.
  const int moved = file.replace ? ::rename(beside.c_str(), file.path.c_str())
                                 : ::link(beside.c_str(), file.path.c_str());
  const absl::Status status = moved == 0 ? absl::OkStatus() : FromErrno(file.path, "write");
  if (!file.replace || moved != 0) ::unlink(beside.c_str());
  return status;
}

}  // namespace baleen::security
