#include "tools/cli/client/http_get.h"

#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <utility>

#include "observability/base/clock.h"
#include "observability/base/status_macros.h"
#include "tools/cli/cluster/descriptor.h"

namespace baleen::cli {
namespace {

constexpr std::size_t kPageBytesMax = 4u << 20;  // far above what our processes export

struct HostPort {
  std::string host;
  std::string port;
};

absl::StatusOr<HostPort> Split(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == address.size()) {
    return absl::InvalidArgumentError(fmt::format("'{}' is not host:port", address));
  }
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return HostPort{std::move(host), address.substr(colon + 1)};
}

class Exchange {
 public:
  Exchange(const std::string& address, absl::Duration within)
      : address_(address), deadline_(SystemClock().Monotonic() + within) {}

  absl::Status Connect() {
    BALEEN_ASSIGN_OR_RETURN(const HostPort target, Split(address_));
    const addrinfo hints{.ai_socktype = SOCK_STREAM};
    addrinfo* found = nullptr;
    const int error = ::getaddrinfo(target.host.c_str(), target.port.c_str(), &hints, &found);
    if (error != 0) return Unavailable(::gai_strerror(error));
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
    socket_ = Descriptor(
        ::socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket_.open()) return Unavailable(std::strerror(errno));
    if (::connect(socket_.number(), found->ai_addr, found->ai_addrlen) == 0) {
      return absl::OkStatus();
    }
    if (errno != EINPROGRESS) return Unavailable(std::strerror(errno));
    BALEEN_RETURN_IF_ERROR(Wait(POLLOUT));
    int outcome = 0;
    socklen_t size = sizeof(outcome);
    ::getsockopt(socket_.number(), SOL_SOCKET, SO_ERROR, &outcome, &size);
    return outcome == 0 ? absl::OkStatus() : Unavailable(std::strerror(outcome));
  }

  absl::Status Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_.number(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent > 0) {
        bytes.remove_prefix(static_cast<std::size_t>(sent));
      } else if (errno == EAGAIN) {
        BALEEN_RETURN_IF_ERROR(Wait(POLLOUT));
      } else if (errno != EINTR) {
        return Unavailable(std::strerror(errno));
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> ReceiveAll() {
    std::string received;
    std::array<char, 16 * 1024> buffer;
    while (received.size() <= kPageBytesMax) {
      const ssize_t got = ::recv(socket_.number(), buffer.data(), buffer.size(), 0);
      if (got > 0) {
        received.append(buffer.data(), static_cast<std::size_t>(got));
      } else if (got == 0) {
        return received;
      } else if (errno == EAGAIN) {
        BALEEN_RETURN_IF_ERROR(Wait(POLLIN));
      } else if (errno != EINTR) {
        return Unavailable(std::strerror(errno));
      }
    }
    return absl::InternalError(
        fmt::format("the answer of {} is larger than {} bytes", address_, kPageBytesMax));
  }

 private:
  absl::Status Unavailable(const char* why) const {
    return absl::UnavailableError(fmt::format("{}: {}", address_, why));
  }

  absl::Status Wait(short events) {
    const absl::Duration left = deadline_ - SystemClock().Monotonic();
    pollfd wanted{.fd = socket_.number(), .events = events, .revents = 0};
    const auto ms = std::clamp<std::int64_t>(absl::ToInt64Milliseconds(left) + 1, 0, 3'600'000);
    if (left > absl::ZeroDuration() && ::poll(&wanted, 1, static_cast<int>(ms)) != 0) {
      return absl::OkStatus();
    }
    return absl::DeadlineExceededError(fmt::format("{} does not answer in time", address_));
  }

  const std::string address_;
  const absl::Duration deadline_;
  Descriptor socket_;
};

}  // namespace

absl::StatusOr<std::string> HttpGet(const std::string& address, std::string_view path,
                                    absl::Duration within) {
  Exchange exchange(address, within);
  BALEEN_RETURN_IF_ERROR(exchange.Connect());
  BALEEN_RETURN_IF_ERROR(
      exchange.Send(fmt::format("GET {} HTTP/1.0\r\nHost: {}\r\n\r\n", path, address)));
  BALEEN_ASSIGN_OR_RETURN(const std::string answer, exchange.ReceiveAll());
  const std::size_t line_end = answer.find("\r\n");
  const std::size_t head_end = answer.find("\r\n\r\n");
  const std::string status_line = answer.substr(0, line_end);
  if (head_end == std::string::npos || !status_line.starts_with("HTTP/1.") ||
      status_line.find(" 200") == std::string::npos) {
    return absl::InternalError(
        fmt::format("{}{} answers '{}'", address, path, status_line.substr(0, 100)));
  }
  return answer.substr(head_end + 4);
}

std::optional<double> SampleOf(std::string_view page, std::string_view series) {
  while (!page.empty()) {
    const std::size_t end = std::min(page.find('\n'), page.size());
    std::string_view line = page.substr(0, end);
    page.remove_prefix(std::min(end + 1, page.size()));
    if (!line.starts_with(series) || line.substr(series.size(), 1) != " ") continue;
    line.remove_prefix(series.size() + 1);
    double value = 0;
    const auto parsed = std::from_chars(line.data(), line.data() + line.size(), value);
    if (parsed.ec == std::errc()) return value;
  }
  return std::nullopt;
}

}  // namespace baleen::cli
