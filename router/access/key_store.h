// API keys: whose they are and what they allow, from a file that may change while we run.
//
// Neither the file nor this process's memory holds keys, only their SHA-256. A presented key is
// hashed, then found by a second hash that is keyed with a random number of this process, so that
// how long the search takes says nothing about any key; the last comparison is in constant time.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "router/access/caller.h"
#include "security/files/watched_file.h"

namespace baleen::router {

// Thread-safe. Looks at its file again when it is asked and a second has passed; there is no thread
// of its own. A file that can not be used leaves the keys as they are and is logged, with the line.
class KeyStore {
 public:
  // Without keys: everybody is the same caller, of tenant "", without limits.
  KeyStore();
  ~KeyStore();

  // INVALID_ARGUMENT or NOT_FOUND names the file, the line and the limit. `clock` is borrowed.
  static absl::StatusOr<std::unique_ptr<KeyStore>> Open(const std::string& path,
                                                        const Clock& clock);

  // Whether callers need a key at all.
  bool required() const { return watched_ != nullptr; }

  // The caller of an `authorization` header or metadata value, "Bearer KEY"; "" when there is none.
  // kUnauthenticated; the text never says what was presented.
  absl::StatusOr<CallerPointer> Authenticate(std::string_view authorization) const;

 private:
  class Table;
  struct Watched;
  explicit KeyStore(std::unique_ptr<Watched> watched);

  std::shared_ptr<const Table> Current() const;

  const CallerPointer anyone_;
  const std::unique_ptr<Watched> watched_;  // null: there are no keys
};

}  // namespace baleen::router
