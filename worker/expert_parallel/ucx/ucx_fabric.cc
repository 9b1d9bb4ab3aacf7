#include "worker/expert_parallel/ucx/ucx_fabric.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/time/clock.h"
#include "observability/base/check.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "worker/ucx/ucx_config.h"

namespace baleen::worker {
namespace {

constexpr unsigned kMessage = 3;
// How long the destructor goes on closing. Measured: a forced close takes a few milliseconds.
constexpr absl::Duration kCloseLimit = absl::Milliseconds(500);
// UCX reads addresses without being told where they end: what a peer sent is followed by zeros.
constexpr std::size_t kAddressBytesMax = std::size_t{1} << 16;

}  // namespace

struct UcxFabric::Peer {
  UcxFabric* owner = nullptr;
  std::int32_t rank = 0;
  ucp_ep_h endpoint = nullptr;
  bool lost = false;
  bool told = false;
  ucs_status_t status = UCS_OK;
};

UcxFabric::UcxFabric(FabricSink& sink) : sink_(sink) {}

absl::StatusOr<std::unique_ptr<UcxFabric>> UcxFabric::Create(FabricSink& sink,
                                                             const std::string& transports) {
  std::unique_ptr<UcxFabric> fabric(new UcxFabric(sink));
  BALEEN_RETURN_IF_ERROR(fabric->Start(transports));
  return fabric;
}

absl::Status UcxFabric::Start(const std::string& transports) {
  BALEEN_ASSIGN_OR_RETURN(const UcxConfig config, ReadUcxConfig(transports));
  ucp_params_t context_params{};
  context_params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME;
  context_params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  context_params.name = "baleen expert_parallel";
  if (const auto status = ucp_init(&context_params, config.get(), &context_); status != UCS_OK) {
    return FromUcx("starting", status);
  }
  ucp_worker_params_t worker_params{};
  worker_params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  worker_params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  if (const auto status = ucp_worker_create(context_, &worker_params, &worker_); status != UCS_OK) {
    return FromUcx("creating a worker", status);
  }
  BALEEN_RETURN_IF_ERROR(RegisterHandler());
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
  return absl::OkStatus();
}

absl::Status UcxFabric::RegisterHandler() {
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = kMessage;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.arg = this;
  handler.cb = [](void* self, const void* header, std::size_t header_bytes, void* data,
                  std::size_t length, const ucp_am_recv_param_t* param) {
    const bool rendezvous = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
    return static_cast<UcxFabric*>(self)->Receive(
        {static_cast<const std::byte*>(header), header_bytes}, data, length, rendezvous);
  };
  if (const auto status = ucp_worker_set_am_recv_handler(worker_, &handler); status != UCS_OK) {
    return FromUcx("registering a message handler", status);
  }
  return absl::OkStatus();
}

UcxFabric::~UcxFabric() {
  if (worker_ != nullptr) {
    Close();
    ucp_worker_destroy(worker_);
  }
  // Only now does nobody write into it.
  for (const Region& region : regions_) {
    if (region.handle != nullptr) ucp_mem_unmap(context_, region.handle);
    munmap(region.data, region.bytes);
  }
  if (context_ != nullptr) ucp_cleanup(context_);
}

void UcxFabric::Close() {
  std::vector<ucs_status_ptr_t> closing;
  for (const auto& peer : peers_) {
    if (peer == nullptr) continue;
    // What still arrives is not answered: the endpoint is no more.
    peer->lost = true;
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_EP_CLOSE_FLAG_FORCE;
    const ucs_status_ptr_t request = ucp_ep_close_nbx(peer->endpoint, &param);
    if (UCS_PTR_IS_PTR(request)) closing.push_back(request);
  }
  const absl::Time limit = absl::Now() + kCloseLimit;
  while ((!closing.empty() || in_flight_ > 0) && absl::Now() < limit) {
    ucp_worker_progress(worker_);
    std::erase_if(closing, [](ucs_status_ptr_t request) {
      if (ucp_request_check_status(request) == UCS_INPROGRESS) return false;
      ucp_request_free(request);
      return true;
    });
  }
  if (in_flight_ > 0) log::Error("UCX operations do not end", {{"operations", in_flight_}});
}

absl::StatusOr<std::byte*> UcxFabric::Allocate(std::size_t bytes, bool registered, std::byte* at) {
  void* mapped =
      mmap(at, bytes, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at != nullptr ? MAP_FIXED : 0), -1, 0);
  if (mapped == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        fmt::format("all-to-all: no {} bytes of memory: {}", bytes, std::strerror(errno)));
  }
  regions_.push_back({.data = static_cast<std::byte*>(mapped), .bytes = bytes, .handle = nullptr});
  Region& region = regions_.back();
  if (!registered) return region.data;
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  params.address = region.data;
  params.length = bytes;
  if (const auto status = ucp_mem_map(context_, &params, &region.handle); status != UCS_OK) {
    if (at == nullptr) munmap(mapped, bytes);  // else it is the caller's again
    regions_.pop_back();
    return FromUcx(fmt::format("registering {} bytes", bytes), status);
  }
  return region.data;
}

absl::Status UcxFabric::Connect(std::int32_t rank, const std::string& address) {
  if (peers_.size() <= static_cast<std::size_t>(rank)) peers_.resize(rank + 1);
  BALEEN_CHECK(peers_[rank] == nullptr, "each peer is connected once");
  auto peer = std::make_unique<Peer>();
  peer->owner = this;
  peer->rank = rank;
  std::string padded = address;
  padded.resize(kAddressBytesMax);
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(padded.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.arg = peer.get();
  params.err_handler.cb = [](void* lost, ucp_ep_h /*endpoint*/, ucs_status_t status) {
    auto& of = *static_cast<Peer*>(lost);
    of.owner->MarkLost(of, status);
  };
  if (const auto status = ucp_ep_create(worker_, &params, &peer->endpoint); status != UCS_OK) {
    return FromUcx(
        fmt::format(
            "connecting to rank {} (UCX_TLS must allow a transport that reports dead peers, "
            "as tcp does)",
            rank),
        status);
  }
  peers_[rank] = std::move(peer);
  return absl::OkStatus();
}

void UcxFabric::Send(std::int32_t rank, OutgoingMessage& message,
                     std::span<const std::byte> payload) {
  BALEEN_CHECK(!message.in_flight, "a message is sent once at a time");
  // Connecting may have ended before this peer's turn, and it speaks to us nevertheless.
  if (static_cast<std::size_t>(rank) >= peers_.size() || peers_[rank] == nullptr) return;
  Peer& peer = *peers_[rank];
  if (peer.lost) return;
  message.fabric = this;
  message.in_flight = true;
  ++in_flight_;
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  param.memory_type = UCS_MEMORY_TYPE_HOST;
  param.user_data = &message;
  param.cb.send = [](void* request, ucs_status_t /*status*/, void* user_data) {
    auto& sent = *static_cast<OutgoingMessage*>(user_data);
    sent.fabric->FinishSend(sent);
    ucp_request_free(request);
  };
  const ucs_status_ptr_t request =
      ucp_am_send_nbx(peer.endpoint, kMessage, &message.frame, sizeof(message.frame),
                      payload.data(), payload.size(), &param);
  if (UCS_PTR_IS_PTR(request)) return;
  FinishSend(message);
  if (UCS_PTR_IS_ERR(request)) MarkLost(peer, UCS_PTR_STATUS(request));
}

// A message that could not be sent is that of a peer whose error handler is called as well.
void UcxFabric::FinishSend(OutgoingMessage& message) {
  message.in_flight = false;
  --in_flight_;
}

ucs_status_t UcxFabric::Receive(std::span<const std::byte> header, void* data, std::size_t length,
                                bool rendezvous) {
  IncomingMessage* const message = sink_.OnMessage(header, length);
  if (message == nullptr) return UCS_OK;
  BALEEN_CHECK(message->payload.size() == length && !message->in_flight,
               "the sink has room for what it takes");
  message->fabric = this;
  message->in_flight = true;
  ++in_flight_;
  if (!rendezvous) {
    if (length > 0) std::memcpy(message->payload.data(), data, length);
    FinishReceive(*message, UCS_OK);
    return UCS_OK;
  }
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  param.memory_type = UCS_MEMORY_TYPE_HOST;
  param.user_data = message;
  param.cb.recv_am = [](void* request, ucs_status_t status, std::size_t /*length*/,
                        void* user_data) {
    auto& received = *static_cast<IncomingMessage*>(user_data);
    received.fabric->FinishReceive(received, status);
    ucp_request_free(request);
  };
  const ucs_status_ptr_t request =
      ucp_am_recv_data_nbx(worker_, data, message->payload.data(), length, &param);
  if (!UCS_PTR_IS_PTR(request)) FinishReceive(*message, UCS_PTR_RAW_STATUS(request));
  return UCS_INPROGRESS;
}

// What does not arrive is that of a peer whose error handler is called as well.
void UcxFabric::FinishReceive(IncomingMessage& message, ucs_status_t status) {
  message.in_flight = false;
  --in_flight_;
  if (status == UCS_OK) sink_.OnReceived(message);
}

void UcxFabric::MarkLost(Peer& peer, ucs_status_t status) {
  if (peer.lost) return;
  peer.lost = true;
  peer.status = status;
  lost_ = true;
}

void UcxFabric::TellLost() {
  lost_ = false;
  for (const auto& peer : peers_) {
    if (peer == nullptr || !peer->lost || std::exchange(peer->told, true)) continue;
    sink_.OnPeerLost(peer->rank, ucs_status_string(peer->status));
  }
}

bool UcxFabric::Progress() {
  const bool progressed = ucp_worker_progress(worker_) != 0;
  if (lost_) TellLost();
  return progressed;
}

void UcxFabric::Wait(absl::Duration limit) {
  if (lost_ || ucp_worker_arm(worker_) != UCS_OK) return;  // there is something to do already
  pollfd events{.fd = event_fd_, .events = POLLIN, .revents = 0};
  const timespec limit_spec = absl::ToTimespec(limit);
  if (ppoll(&events, 1, &limit_spec, nullptr) < 0 && errno != EINTR) {
    log::Error("cannot wait for the data plane", {{"error", std::strerror(errno)}});
  }
}

void UcxFabric::Signal() { ucp_worker_signal(worker_); }

void UcxFabric::Drain(absl::Duration limit) {
  const absl::Time end = absl::Now() + limit;
  for (absl::Time now = absl::Now(); in_flight_ > 0 && now < end; now = absl::Now()) {
    if (!Progress()) Wait(end - now);
  }
}

void UcxFabric::Flush(absl::Duration limit) {
  ucp_request_param_t param{};
  const ucs_status_ptr_t request = ucp_worker_flush_nbx(worker_, &param);
  const absl::Time end = absl::Now() + limit;
  const auto flushing = [&] {
    return in_flight_ > 0 ||
           (UCS_PTR_IS_PTR(request) && ucp_request_check_status(request) == UCS_INPROGRESS);
  };
  while (flushing() && absl::Now() < end) Progress();
  if (UCS_PTR_IS_PTR(request)) ucp_request_free(request);
}

}  // namespace baleen::worker
