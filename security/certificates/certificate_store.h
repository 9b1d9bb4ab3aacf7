// The certificate, key and authorities of a port or a client, which may be replaced while we run.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "security/certificates/certificates.h"
#include "security/files/watched_file.h"

namespace baleen::security {

// Thread-safe. Looks at its files again when it is asked and a second has passed; there is no
// thread of its own. Files that can not be used (half of a new pair, an expired certificate) leave
// what there is as it is and are logged.
class CertificateStore {
 public:
  // What Certificates::Make refuses, and files that can not be read, are errors that name the file.
  // `clock` is borrowed.
  static absl::StatusOr<std::shared_ptr<CertificateStore>> Open(const CertificateFiles& files,
                                                                const Clock& clock);

  // For the next connection. Never null.
  std::shared_ptr<const Certificates> Current();

 private:
  // A file and its text.
  struct Part {
    WatchedFile file;
    std::string text;
  };

  CertificateStore(const CertificateFiles& files, const Clock& clock);

  // Null: the files are as they were.
  absl::StatusOr<std::shared_ptr<const Certificates>> ReadIfChanged();
  absl::Status ReadParts(bool& changed);

  const CertificateFiles files_;
  const Clock& clock_;

  std::mutex reload_;  // one thread reads the files, the others go on with what there is
  // Guarded by reload_:
  std::vector<Part> parts_;  // certificate, key, and authority if there is one
  absl::Duration looked_at_;

  std::mutex mutex_;
  std::shared_ptr<const Certificates> current_;  // guarded by mutex_
};

}  // namespace baleen::security
