#include "security/certificates/certificate_store.h"

#include <optional>
#include <utility>

#include "observability/base/log.h"
#include "observability/base/status_macros.h"

namespace baleen::security {
namespace {

constexpr absl::Duration kLookEvery = absl::Seconds(1);

void LogTaken(const CertificateFiles& files, const Certificates& taken) {
  log::Info(
      "certificate taken",
      {{"file", files.certificate},
       {"subject", taken.subject},
       {"valid_until", absl::FormatTime(absl::RFC3339_sec, taken.not_after, absl::UTCTimeZone())}});
}

}  // namespace

CertificateStore::CertificateStore(const CertificateFiles& files, const Clock& clock)
    : files_(files), clock_(clock) {
  parts_.push_back({.file = WatchedFile(files.certificate, kPemFileBytesMax)});
  parts_.push_back({.file = WatchedFile(files.key, kPemFileBytesMax)});
  if (files.authority.empty()) return;
  parts_.push_back({.file = WatchedFile(files.authority, kPemFileBytesMax)});
}

absl::StatusOr<std::shared_ptr<CertificateStore>> CertificateStore::Open(
    const CertificateFiles& files, const Clock& clock) {
  std::shared_ptr<CertificateStore> self(new CertificateStore(files, clock));
  BALEEN_ASSIGN_OR_RETURN(self->current_, self->ReadIfChanged());
  LogTaken(files, *self->current_);
  return self;
}

std::shared_ptr<const Certificates> CertificateStore::Current() {
  if (std::unique_lock reload(reload_, std::try_to_lock);
      reload.owns_lock() && clock_.Monotonic() - looked_at_ >= kLookEvery) {
    absl::StatusOr<std::shared_ptr<const Certificates>> read = ReadIfChanged();
    if (!read.ok()) {
      log::Error("the new certificate can not be used, the old one stays",
                 {{"reason", std::string(read.status().message())}});
    } else if (*read != nullptr) {
      LogTaken(files_, **read);
      const std::lock_guard lock(mutex_);
      current_ = *std::move(read);
    }
  }
  const std::lock_guard lock(mutex_);
  return current_;
}

absl::StatusOr<std::shared_ptr<const Certificates>> CertificateStore::ReadIfChanged() {
  looked_at_ = clock_.Monotonic();
  bool changed = false;
  BALEEN_RETURN_IF_ERROR(ReadParts(changed));
  if (!changed) return nullptr;
  return Certificates::Make(files_,
                            {.certificate = parts_[0].text,
                             .key = parts_[1].text,
                             .authority = parts_.size() > 2 ? parts_[2].text : std::string()},
                            clock_.Wall());
}

absl::Status CertificateStore::ReadParts(bool& changed) {
  absl::Status status;
  for (Part& part : parts_) {
    absl::StatusOr<std::optional<std::string>> text = part.file.ReadIfChanged(clock_.Wall());
    if (!text.ok()) {
      status.Update(text.status());
    } else if (text->has_value()) {
      part.text = **std::move(text);
      changed = true;
      if (&part == &parts_[1] && ReadableByOthers(part.file.signature())) {
        log::Warning("a private key can be read by every user of this machine",
                     {{"file", part.file.path()}});
      }
    }
  }
  return status;
}

}  // namespace baleen::security
