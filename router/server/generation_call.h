// Chat and Generate over gRPC: a generation, and the stream that its parts are written to.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string_view>

#include "absl/status/status.h"
#include "router/server/call.h"
#include "router/server/generation/generation.h"

namespace baleen::router {

class GenerationCall final : public Call, private GenerationEdge {
 public:
  GenerationCall(const CallContext& context, Method method);

 private:
  void OnRequest(std::string_view bytes) override;
  void OnGone() override;
  void OnReady() override;

  void Finish(const absl::Status& status);
  void AddRoute();
  void OnWritten(bool ok);

  const bool chat_;
  grpc::ServerAsyncWriter<grpc::ByteBuffer> writer_;
  Tag written_;
  Tag finished_;
  Generation generation_;
  bool writing_ = false;  // a write or the finish is outstanding: one at a time
};

}  // namespace baleen::router
