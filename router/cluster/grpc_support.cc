#include "router/cluster/grpc_support.h"

#include <fmt/format.h>
#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <charconv>

#include "observability/base/log.h"
#include "proto/contract/limits.h"

namespace baleen::router {
namespace {

// A peer that vanished without a word is noticed within 15 s on the client port; workers have a
// lease besides.
constexpr int kPingEveryMs = 10'000;
constexpr int kPingAnswerMs = 5'000;
// Peers may ping us as often as every 5 s.
constexpr int kPingReceivedEveryMs = 5'000;

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

void LimitServer(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(contract::kMessageBytesMax));
  builder.SetMaxSendMessageSize(static_cast<int>(contract::kMessageBytesMax));
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kPingEveryMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kPingAnswerMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kPingReceivedEveryMs);
}

absl::StatusOr<std::string> HostOf(const std::string& what, const std::string& address) {
  const std::size_t colon = address.rfind(':');
  int port = -1;
  if (colon != std::string::npos) {
    const char* const end = address.data() + address.size();
    const auto [parsed, error] = std::from_chars(address.data() + colon + 1, end, port);
    if (parsed != end || error != std::errc()) port = -1;
  }
  if (colon == std::string::npos || colon == 0 || port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        fmt::format("{} '{}' is not host:port with a port of 0 to 65535", what, address));
  }
  return address.substr(0, colon);
}

void QuietGrpcLog() {
  gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
  gpr_set_log_function([](gpr_log_func_args* line) {
    log::Debug("grpc", {{"message", std::string_view(line->message)}});
  });
  google::protobuf::SetLogHandler(
      [](google::protobuf::LogLevel, const char*, int, const std::string& message) {
        log::Debug("protobuf", {{"message", message}});
      });
}

}  // namespace baleen::router
