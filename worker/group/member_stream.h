// One Join stream to a group's leader, from dialling to its end.
//
// Two threads: the caller of Attend writes, a second one reads.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/baleen/v1/group.grpc.pb.h"
#include "security/certificates/certificate_store.h"
#include "worker/group/messages.h"
#include "worker/group/rules/member_mailbox.h"

namespace baleen::worker {

struct MemberStreamOptions {
  std::string leader;
  std::shared_ptr<security::CertificateStore> certificates;  // of the inside; null: plaintext
  absl::Duration welcome_wait = absl::Seconds(5);
  absl::Duration counts_every = absl::Seconds(5);
};

class MemberStream {
 public:
  // Borrows the mailbox.
  MemberStream(const MemberStreamOptions& options, MemberMailbox& mailbox);

  struct Ending {
    absl::Status why;      // OK: the leader ended the stream in order
    bool refused = false;  // the leader has refused this member, or they do not fit each other
  };
  // Dials, says `hello`, and attends the leader until the stream ends for any reason. The mailbox
  // has been told when it returns. Call once.
  Ending Attend(const HelloMessage& hello);

  // Any thread: ends the stream now.
  void Abort(absl::Status why);

 private:
  void WriteAll();
  void ReadAll();
  bool Write(const MemberMessage& message);
  bool LeaderIsSilent();

  const MemberStreamOptions options_;
  MemberMailbox& mailbox_;
  grpc::ClientContext context_;
  std::unique_ptr<v1::Group::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::MemberMessage, v1::LeaderMessage>> stream_;

  // Set by the reader before the mailbox says welcomed.
  absl::Duration heartbeat_;
  absl::Duration silence_max_;
  std::atomic<std::int64_t> heard_at_ns_ = 0;  // monotonic

  std::mutex mutex_;
  // Guarded by mutex_:
  absl::Status why_;    // why this side ended the stream, if it did
  bool unfit_ = false;  // the leader's placement does not fit
};

}  // namespace baleen::worker
