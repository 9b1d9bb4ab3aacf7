// Chat and Generate: from the request message over text and dispatch to the last chunk.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "router/server/call.h"
#include "router/server/request/reply.h"
#include "router/server/request/validate.h"

namespace baleen::router {

class GenerationCall final : public Call {
 public:
  GenerationCall(const CallContext& context, Method method);

  void OnPrompt(absl::StatusOr<Prompt> prompt) override;
  void OnReply(Reply reply) override;

 private:
  enum class Phase : std::uint8_t {
    kReading,     // the request message
    kText,        // in the text pool
    kDispatched,  // its replies come
    kEnded,       // no reply comes any more; what is pending and the status go to the client
  };

  void OnRequest(std::string_view bytes) override;
  void OnGone() override;

  absl::Status Accept(std::string_view bytes);
  absl::Status Submit(Prompt prompt);
  void TakeToken(ReplyToken token);
  void TakeEnding(const Ending& ending);
  void Fail(absl::Status status);
  void SetPhase(Phase phase);

  // The stream: one operation at a time.
  void WriteNext();
  void OnWritten(bool ok);

  contract::RequestId id() const { return {parts_.router, number()}; }
  absl::Duration Elapsed() const;

  const bool chat_;
  grpc::ServerAsyncWriter<grpc::ByteBuffer> writer_;
  Tag written_;
  Tag finished_;

  Phase phase_ = Phase::kReading;
  absl::Duration accepted_;
  absl::Duration latest_token_;
  std::optional<absl::Duration> to_first_token_;
  Admission::Ticket ticket_;
  const ModelText* model_ = nullptr;
  GenerationRequest request_;
  std::unique_ptr<ReplyBuilder> reply_;  // once dispatched
  bool operating_ = false;               // a write or the finish is outstanding
  std::optional<absl::Status> status_;   // of the call, once known
};

}  // namespace baleen::router
