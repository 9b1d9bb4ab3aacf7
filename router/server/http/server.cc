#include "router/server/http/server.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <map>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"

namespace baleen::router::http {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;

// Connections that the kernel has accepted and we have not.
constexpr int kBacklog = 4096;
// Until there may be descriptors again.
constexpr auto kRetryAfter = std::chrono::milliseconds(100);

// A peer that vanishes without a word is noticed within a minute and a half while nothing is sent,
// and within half a minute while something is.
void KeepAlive(tcp::socket& socket) {
  const int number = socket.native_handle();
  const auto set = [number](int level, int option, int value) {
    ::setsockopt(number, level, option, &value, sizeof(value));
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 30'000);
  set(IPPROTO_TCP, TCP_NODELAY, 1);
}

// One customer has a /64 of IPv6.
std::string PeerOf(const tcp::endpoint& endpoint) {
  const boost::asio::ip::address address = endpoint.address();
  if (address.is_v4()) return address.to_string();
  const auto v6 = address.to_v6();
  if (v6.is_v4_mapped()) {
    return boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, v6).to_string();
  }
  const auto bytes = v6.to_bytes();
  return std::string(bytes.begin(), bytes.begin() + 8);
}

absl::StatusOr<tcp::endpoint> Resolve(boost::asio::io_context& io_context,
                                      const std::string& listen) {
  const std::size_t colon = listen.rfind(':');
  if (colon == std::string::npos) {
    return absl::InvalidArgumentError(fmt::format("http address '{}' is not host:port", listen));
  }
  std::string host = listen.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  error_code error;
  tcp::resolver resolver(io_context);
  const auto found =
      resolver.resolve(host, listen.substr(colon + 1),
                       tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("http address '{}': {}", listen, error.message()));
  }
  return found.begin()->endpoint();
}

}  // namespace

// On the thread of the first loop.
class Server::Acceptor : public std::enable_shared_from_this<Acceptor> {
 public:
  Acceptor(const Options& options, std::vector<std::unique_ptr<Loop>>& loops, TlsContexts tls)
      : options_(options),
        loops_(loops),
        tls_(std::move(tls)),
        acceptor_(loops[0]->io_context()),
        timer_(loops[0]->io_context()) {}

  absl::Status Listen() {
    BALEEN_ASSIGN_OR_RETURN(const tcp::endpoint endpoint,
                            Resolve(loops_[0]->io_context(), options_.listen));
    error_code error;
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    // Accepted sockets inherit it. Before they are, so that the window is chosen to match.
    const int bytes = options_.send_buffer_bytes;
    ::setsockopt(acceptor_.native_handle(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(kBacklog, error);
    if (error) {
      const std::string why =
          fmt::format("cannot listen on '{}' for HTTP: {}", options_.listen, error.message());
      return error == boost::asio::error::address_in_use ? absl::AlreadyExistsError(why)
                                                         : absl::InvalidArgumentError(why);
    }
    const tcp::endpoint bound = acceptor_.local_endpoint();
    address_ =
        fmt::format("{}:{}", options_.listen.substr(0, options_.listen.rfind(':')), bound.port());
    return absl::OkStatus();
  }

  const std::string& address() const { return address_; }

  void Accept() {
    Loop& target = *loops_[next_++ % loops_.size()];
    acceptor_.async_accept(target.io_context(), [self = shared_from_this(), &target](
                                                    const error_code& error, tcp::socket socket) {
      self->OnAccepted(error, target, std::move(socket));
    });
  }

  void Close() {
    error_code ignored;
    acceptor_.close(ignored);
    timer_.cancel();
  }

 private:
  void OnAccepted(const error_code& error, Loop& target, tcp::socket socket) {
    if (!acceptor_.is_open()) return;
    if (error) {
      if (error != boost::asio::error::connection_aborted) {
        log::Warning("http accept failed", {{"error", error.message()}});
      }
      timer_.expires_after(kRetryAfter);
      timer_.async_wait([self = shared_from_this()](const error_code& cancelled) {
        if (!cancelled) self->Accept();
      });
      return;
    }
    Admit(target, std::move(socket));
    Accept();
  }

  void Admit(Loop& target, tcp::socket socket) {
    error_code error;
    const tcp::endpoint remote = socket.remote_endpoint(error);
    if (error) return;  // gone already
    const std::string peer = PeerOf(remote);
    const auto known = peers_.find(peer);
    const std::size_t of_peer = known == peers_.end() ? 0 : known->second;
    if (connections_ >= options_.connections_max || of_peer >= options_.connections_per_peer_max) {
      Turn(std::move(socket));
      return;
    }
    ++connections_;
    ++peers_[peer];
    KeepAlive(socket);
    auto closed = [self = shared_from_this(), peer] {
      self->loops_[0]->Post([self, peer] { self->Leave(peer); });
    };
    std::shared_ptr<SSL_CTX> tls = tls_ == nullptr ? nullptr : tls_();
    target.Post([&target, socket = std::move(socket), tls = std::move(tls),
                 closed = std::move(closed)]() mutable {
      target.Adopt(std::move(socket), std::move(tls), std::move(closed));
    });
  }

  // Too many: a word of why, as far as the socket takes it now.
  void Turn(tcp::socket socket) {
    if (tls_ != nullptr) return;
    const Response response =
        loops_[0]->handler().MakeError(503, "too many connections are open: try again later");
    const std::string bytes = WriteHead(response, {.keep_alive = false,
                                                   .length = response.body.size(),
                                                   .date = loops_[0]->date()}) +
                              response.body;
    (void)!::send(socket.native_handle(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    error_code ignored;
    socket.shutdown(tcp::socket::shutdown_send, ignored);
  }

  void Leave(const std::string& peer) {
    --connections_;
    const auto it = peers_.find(peer);
    BALEEN_CHECK(it != peers_.end(), "who leaves has come");
    if (--it->second == 0) peers_.erase(it);
  }

  const Options options_;
  std::vector<std::unique_ptr<Loop>>& loops_;
  const TlsContexts tls_;
  tcp::acceptor acceptor_;
  boost::asio::steady_timer timer_;
  std::string address_;
  std::size_t next_ = 0;
  std::size_t connections_ = 0;
  std::map<std::string, std::size_t> peers_;  // connections of each
};

Server::Server(const Options& options, const Clock& clock) {
  for (std::size_t i = 0; i < std::max<std::size_t>(1, options.threads); ++i) {
    loops_.push_back(std::make_unique<Loop>(options, clock));
  }
}

absl::StatusOr<std::unique_ptr<Server>> Server::Listen(const Options& options, const Clock& clock,
                                                       TlsContexts tls) {
  std::unique_ptr<Server> self(new Server(options, clock));
  self->acceptor_ = std::make_shared<Acceptor>(options, self->loops_, std::move(tls));
  BALEEN_RETURN_IF_ERROR(self->acceptor_->Listen());
  return self;
}

Server::~Server() {
  Stop();
  acceptor_.reset();
}

const std::string& Server::address() const { return acceptor_->address(); }

void Server::Start(const std::vector<Handler*>& handlers) {
  BALEEN_CHECK(handlers.size() == loops_.size(), "one handler for each loop");
  for (std::size_t i = 0; i < loops_.size(); ++i) loops_[i]->Start(*handlers[i]);
  loops_[0]->Post([acceptor = acceptor_] { acceptor->Accept(); });
}

void Server::Stop() {
  if (std::exchange(stopped_, true)) return;
  loops_[0]->Post([acceptor = acceptor_] { acceptor->Close(); });
  for (const auto& loop : loops_) loop->Stop();
  for (const auto& loop : loops_) loop->Join();
}

}  // namespace baleen::router::http
