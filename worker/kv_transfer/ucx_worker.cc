#include "worker/kv_transfer/ucx_worker.h"

#include <fmt/format.h>
#include <poll.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/time/clock.h"
#include "observability/base/check.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "worker/ucx/ucx_config.h"

namespace baleen::worker {
namespace {

constexpr unsigned kFrameMessage = 1;
constexpr unsigned kBlockMessage = 2;

// Connections are cached for as long as the peer lives. Twice the prefill and decode ranks of a
// large cluster.
constexpr std::size_t kPeersMax = 4096;
constexpr std::size_t kAddressReadMax = std::size_t{1} << 16;
// How long the destructor goes on closing. Measured: a forced close takes a few milliseconds.
constexpr absl::Duration kCloseLimit = absl::Seconds(2);

std::span<const std::byte> BytesAt(const void* data, std::size_t size) {
  return {static_cast<const std::byte*>(data), size};
}

// The names of the lanes in the text of ucp_ep_print_info, which has a line "lane[0]:
// 4:posix/memory.0 md[3] ..." for each.
std::string LanesIn(std::string_view text) {
  std::string lanes;
  for (std::size_t at = text.find("lane["); at != std::string_view::npos;
       at = text.find("lane[", at + 1)) {
    const std::string_view line = text.substr(at, text.find('\n', at) - at);
    const std::size_t slash = line.find('/');
    const std::size_t colon = line.rfind(':', slash);
    if (slash == std::string_view::npos || colon == std::string_view::npos) continue;
    const std::string_view name = line.substr(colon + 1, line.find(' ', slash) - colon - 1);
    if (!lanes.empty()) lanes += ",";
    lanes += name;
  }
  return lanes;
}

}  // namespace

struct UcxWorker::Peer {
  UcxWorker* owner = nullptr;
  std::string address;
  ucp_ep_h endpoint = nullptr;
  bool failed = false;
  ucs_status_t status = UCS_OK;
};

// Operations live until UCX has called back, and own what UCX reads meanwhile.
struct UcxWorker::FrameOperation {
  UcxWorker* owner;
  std::string peer;
  std::string bytes;
};

struct UcxWorker::BlockOperation {
  UcxWorker* owner;
  BlockToSend block;
  std::string header;
  std::uint64_t checksum;
};

struct UcxWorker::ReceiveOperation {
  UcxWorker* owner;
  BlockToReceive block;
};

UcxWorker::UcxWorker(UcxSink& sink) : sink_(sink) {}

absl::StatusOr<std::unique_ptr<UcxWorker>> UcxWorker::Create(UcxSink& sink) {
  std::unique_ptr<UcxWorker> worker(new UcxWorker(sink));
  BALEEN_RETURN_IF_ERROR(worker->Start());
  return worker;
}

absl::Status UcxWorker::Start() {
  BALEEN_ASSIGN_OR_RETURN(const UcxConfig config, ReadUcxConfig());
  ucp_params_t context_params{};
  context_params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME;
  context_params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  context_params.name = "baleen kv_transfer";
  if (const auto status = ucp_init(&context_params, config.get(), &context_); status != UCS_OK) {
    return FromUcx("starting", status);
  }
  ucp_worker_params_t worker_params{};
  worker_params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  worker_params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  if (const auto status = ucp_worker_create(context_, &worker_params, &worker_); status != UCS_OK) {
    return FromUcx("creating a worker", status);
  }
  BALEEN_RETURN_IF_ERROR(RegisterHandlers());
  if (const auto status = ucp_worker_get_efd(worker_, &event_fd_); status != UCS_OK) {
    return FromUcx("no event file descriptor", status);
  }
  ucp_address_t* address = nullptr;
  std::size_t address_bytes = 0;
  if (const auto status = ucp_worker_get_address(worker_, &address, &address_bytes);
      status != UCS_OK) {
    return FromUcx("no worker address", status);
  }
  address_.assign(reinterpret_cast<const char*>(address), address_bytes);
  ucp_worker_release_address(worker_, address);
  if (address_bytes > contract::kDataPlaneAddressBytesMax) {
    return absl::FailedPreconditionError(
        fmt::format("UCX: the worker address has {} bytes, above {}: choose fewer network devices "
                    "(UCX_NET_DEVICES)",
                    address_bytes, contract::kDataPlaneAddressBytesMax));
  }
  return CheckTransports();
}

// A choice of transports that cannot connect is found now, not with the first transfer: a
// connection to ourselves needs what any other one needs.
absl::Status UcxWorker::CheckTransports() {
  const absl::StatusOr<Peer*> self = Connect(address_);
  if (!self.ok()) {
    const char* chosen = std::getenv("UCX_TLS");
    return absl::FailedPreconditionError(
        fmt::format("UCX: no transport that reports dead peers (UCX_TLS={}): allow tcp: {}",
                    chosen == nullptr ? "all" : chosen, std::string(self.status().message())));
  }
  ClosePeer(address_);
  return absl::OkStatus();
}

absl::Status UcxWorker::RegisterHandlers() {
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.arg = this;
  handler.id = kFrameMessage;
  handler.cb = [](void* self, const void* /*header*/, std::size_t /*header_bytes*/, void* data,
                  std::size_t length, const ucp_am_recv_param_t* param) {
    const bool rendezvous = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
    return static_cast<UcxWorker*>(self)->ReceiveFrame(BytesAt(data, length), rendezvous);
  };
  if (const auto status = ucp_worker_set_am_recv_handler(worker_, &handler); status != UCS_OK) {
    return FromUcx("registering a message handler", status);
  }
  handler.id = kBlockMessage;
  handler.cb = [](void* self, const void* header, std::size_t header_bytes, void* data,
                  std::size_t length, const ucp_am_recv_param_t* param) {
    const bool rendezvous = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
    return static_cast<UcxWorker*>(self)->ReceiveBlock(BytesAt(header, header_bytes), data, length,
                                                       rendezvous);
  };
  if (const auto status = ucp_worker_set_am_recv_handler(worker_, &handler); status != UCS_OK) {
    return FromUcx("registering a message handler", status);
  }
  return absl::OkStatus();
}

UcxWorker::~UcxWorker() {
  if (worker_ != nullptr) {
    while (!peers_.empty()) ClosePeer(peers_.begin()->first);
    const absl::Time limit = absl::Now() + kCloseLimit;
    while ((!closing_.empty() || operations_in_flight_ > 0) && absl::Now() < limit) Progress();
    if (operations_in_flight_ > 0) {
      log::Error("UCX operations do not end", {{"operations", operations_in_flight_}});
    }
    ucp_worker_destroy(worker_);
  }
  if (context_ != nullptr) ucp_cleanup(context_);
}

absl::StatusOr<UcxWorker::Peer*> UcxWorker::Connect(const std::string& address) {
  if (const auto found = peers_.find(address); found != peers_.end()) {
    if (found->second->failed) return FromUcx("connection lost", found->second->status);
    return found->second.get();
  }
  if (peers_.size() >= kPeersMax) {
    return absl::ResourceExhaustedError(
        fmt::format("UCX: connected to {} peers, the limit", kPeersMax));
  }
  auto peer = std::make_unique<Peer>();
  peer->owner = this;
  peer->address = address;
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  // UCX reads addresses without being told where they end: what a peer sent is followed by zeros.
  std::string padded = address;
  padded.resize(kAddressReadMax);
  params.address = reinterpret_cast<const ucp_address_t*>(padded.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = [](void* failed, ucp_ep_h, ucs_status_t status) {
    auto* peer = static_cast<Peer*>(failed);
    peer->owner->MarkFailed(*peer, status);
  };
  params.err_handler.arg = peer.get();
  if (const auto status = ucp_ep_create(worker_, &params, &peer->endpoint); status != UCS_OK) {
    return FromUcx("connecting to a peer", status);
  }
  return peers_.emplace(address, std::move(peer)).first->second.get();
}

void UcxWorker::SendFrame(const std::string& peer_address, std::string frame) {
  const absl::StatusOr<Peer*> peer = Connect(peer_address);
  if (!peer.ok()) {
    if (!peers_.contains(peer_address)) sink_.OnPeerLost(peer_address, peer.status());
    return;
  }
  auto operation = std::make_unique<FrameOperation>(this, peer_address, std::move(frame));
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                       UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  param.flags = UCP_AM_SEND_FLAG_EAGER;
  param.memory_type = UCS_MEMORY_TYPE_HOST;
  param.user_data = operation.get();
  param.cb.send = [](void* request, ucs_status_t status, void* user_data) {
    auto* finished = static_cast<FrameOperation*>(user_data);
    finished->owner->FinishFrame(finished, status);
    ucp_request_free(request);
  };
  operations_in_flight_++;
  FrameOperation* sent = operation.release();
  const ucs_status_ptr_t request = ucp_am_send_nbx((*peer)->endpoint, kFrameMessage, nullptr, 0,
                                                   sent->bytes.data(), sent->bytes.size(), &param);
  if (!UCS_PTR_IS_PTR(request)) FinishFrame(sent, UCS_PTR_RAW_STATUS(request));
}

void UcxWorker::FinishFrame(FrameOperation* operation, ucs_status_t status) {
  const std::unique_ptr<FrameOperation> finished(operation);
  operations_in_flight_--;
  const auto peer = peers_.find(finished->peer);
  if (peer == peers_.end()) return;
  if (status == UCS_OK) {
    NoteLanes(*peer->second);
  } else if (status != UCS_ERR_CANCELED) {
    // Cancelled frames are those of a connection that we close ourselves; a new one to the same
    // peer may be open already.
    MarkFailed(*peer->second, status);
  }
}

void UcxWorker::SendBlock(BlockToSend block, std::string header, std::uint64_t checksum) {
  const absl::StatusOr<Peer*> peer = Connect(block.peer);
  if (!peer.ok()) {
    sink_.OnBlockSent(block, peer.status(), checksum);
    return;
  }
  auto operation =
      std::make_unique<BlockOperation>(this, std::move(block), std::move(header), checksum);
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                       UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  param.flags = UCP_AM_SEND_FLAG_RNDV;
  param.memory_type = UCS_MEMORY_TYPE_HOST;
  param.user_data = operation.get();
  param.cb.send = [](void* request, ucs_status_t status, void* user_data) {
    auto* finished = static_cast<BlockOperation*>(user_data);
    finished->owner->FinishBlock(finished, status);
    ucp_request_free(request);
  };
  operations_in_flight_++;
  BlockOperation* sent = operation.release();
  const std::span<const std::byte> bytes = sent->block.block;
  const ucs_status_ptr_t request =
      ucp_am_send_nbx((*peer)->endpoint, kBlockMessage, sent->header.data(), sent->header.size(),
                      bytes.data(), bytes.size(), &param);
  if (!UCS_PTR_IS_PTR(request)) FinishBlock(sent, UCS_PTR_RAW_STATUS(request));
}

void UcxWorker::FinishBlock(BlockOperation* operation, ucs_status_t status) {
  const std::unique_ptr<BlockOperation> finished(operation);
  operations_in_flight_--;
  sink_.OnBlockSent(finished->block,
                    status == UCS_OK ? absl::OkStatus() : FromUcx("a block was not sent", status),
                    finished->checksum);
}

ucs_status_t UcxWorker::ReceiveFrame(std::span<const std::byte> data, bool rendezvous) {
  sink_.OnFrame(rendezvous ? std::span<const std::byte>{} : data);
  return UCS_OK;
}

ucs_status_t UcxWorker::ReceiveBlock(std::span<const std::byte> header, void* data,
                                     std::size_t length, bool rendezvous) {
  const std::optional<BlockToReceive> block = sink_.OnBlock(header, length);
  if (!block) return UCS_OK;
  BALEEN_CHECK(block->memory.size() == length, "the sink has compared the lengths");
  auto operation = std::make_unique<ReceiveOperation>(this, *block);
  operations_in_flight_++;
  if (!rendezvous) {  // ours never are; UCX may choose so for very small ones of others
    std::memcpy(block->memory.data(), data, length);
    FinishReceive(operation.release(), UCS_OK);
    return UCS_OK;
  }
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  param.memory_type = UCS_MEMORY_TYPE_HOST;
  param.user_data = operation.get();
  param.cb.recv_am = [](void* request, ucs_status_t status, std::size_t /*length*/,
                        void* user_data) {
    auto* finished = static_cast<ReceiveOperation*>(user_data);
    finished->owner->FinishReceive(finished, status);
    ucp_request_free(request);
  };
  ReceiveOperation* receiving = operation.release();
  const ucs_status_ptr_t request =
      ucp_am_recv_data_nbx(worker_, data, block->memory.data(), length, &param);
  if (!UCS_PTR_IS_PTR(request)) FinishReceive(receiving, UCS_PTR_RAW_STATUS(request));
  return UCS_INPROGRESS;
}

void UcxWorker::FinishReceive(ReceiveOperation* operation, ucs_status_t status) {
  const std::unique_ptr<ReceiveOperation> finished(operation);
  operations_in_flight_--;
  sink_.OnBlockReceived(finished->block, status == UCS_OK
                                             ? absl::OkStatus()
                                             : FromUcx("a block did not arrive", status));
}

void UcxWorker::MarkFailed(Peer& peer, ucs_status_t status) {
  if (peer.failed) return;
  peer.failed = true;
  peer.status = status;
  failed_.push_back(peer.address);
}

void UcxWorker::CloseFailedPeers() {
  for (const std::string& address : std::exchange(failed_, {})) {
    const auto found = peers_.find(address);
    // Closed meanwhile, and possibly connected anew.
    if (found == peers_.end() || !found->second->failed) continue;
    const absl::Status why = FromUcx("connection lost", found->second->status);
    ClosePeer(address);
    sink_.OnPeerLost(address, why);
  }
}

void UcxWorker::ClosePeer(const std::string& peer) {
  auto found = peers_.extract(peer);
  if (!found.empty()) BeginClose(std::move(found.mapped()));
}

void UcxWorker::BeginClose(std::unique_ptr<Peer> peer) {
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_EP_CLOSE_FLAG_FORCE;
  const ucs_status_ptr_t request = ucp_ep_close_nbx(peer->endpoint, &param);
  // The peer stays until the close has finished: UCX may still name it to the error handler.
  if (UCS_PTR_IS_PTR(request)) closing_.push_back({std::move(peer), request});
}

void UcxWorker::ReapClosedPeers() {
  std::erase_if(closing_, [](const ClosingPeer& closing) {
    if (ucp_request_check_status(closing.request) == UCS_INPROGRESS) return false;
    ucp_request_free(closing.request);
    return true;
  });
}

bool UcxWorker::Progress() {
  const bool progressed = ucp_worker_progress(worker_) != 0;
  if (!failed_.empty()) CloseFailedPeers();
  if (!closing_.empty()) ReapClosedPeers();
  return progressed;
}

void UcxWorker::Wait(absl::Duration limit) {
  if (ucp_worker_arm(worker_) != UCS_OK) return;  // there is something to do already
  pollfd events{.fd = event_fd_, .events = POLLIN, .revents = 0};
  const auto limit_ms = static_cast<int>(absl::ToInt64Milliseconds(limit));
  if (poll(&events, 1, limit_ms) < 0 && errno != EINTR) {
    log::Error("cannot wait for the data plane", {{"error", std::strerror(errno)}});
  }
}

void UcxWorker::Signal() { ucp_worker_signal(worker_); }

void UcxWorker::Flush(absl::Duration limit) {
  ucp_request_param_t param{};
  const ucs_status_ptr_t request = ucp_worker_flush_nbx(worker_, &param);
  if (!UCS_PTR_IS_PTR(request)) return;
  const absl::Time end = absl::Now() + limit;
  while (ucp_request_check_status(request) == UCS_INPROGRESS && absl::Now() < end) Progress();
  ucp_request_free(request);
}

void UcxWorker::NoteLanes(const Peer& peer) {
  if (!lanes_.empty()) return;
  char* text = nullptr;
  std::size_t size = 0;
  std::FILE* stream = open_memstream(&text, &size);
  if (stream == nullptr) return;
  ucp_ep_print_info(peer.endpoint, stream);
  std::fclose(stream);
  lanes_ = LanesIn({text, size});
  std::free(text);
  log::Info("KV transfer connected", {{"lanes", lanes_}});
}

}  // namespace baleen::worker
