// Every limit of the HTTP port, with its reason.
#pragma once

#include <cstddef>
#include <string>

#include "absl/time/time.h"

namespace baleen::router::http {

struct Options {
  std::string listen = "127.0.0.1:0";

  // Each owns its connections. One core writes 100,000 events a second and more.
  std::size_t threads = 1;

  // --- What one request may be ---
  // Request line and header fields together. Real ones have less than 2 KiB; a long bearer token or
  // a proxy's cookies need a few more.
  std::size_t header_bytes_max = std::size_t{16} << 10;
  // As a gRPC message: the largest context as token ids (7 digits and commas) is 1.2 MB, the
  // largest conversation 1 MiB before escaping.
  std::size_t body_bytes_max = std::size_t{4} << 20;
  // From its first byte to the end of its header, and of its body: 4 MiB in 60 s is what a mobile
  // uplink does. Whoever is slower holds a connection for nothing.
  absl::Duration header_wait_max = absl::Seconds(10);
  absl::Duration request_wait_max = absl::Seconds(60);

  // --- What one connection may hold ---
  // Without a request. Longer than the 60 s for which common proxies and clients keep a connection,
  // so that they close it, not we while a request is on its way.
  absl::Duration idle_wait_max = absl::Seconds(75);
  // Bytes read ahead while an answer is written: the next request's header, no more.
  std::size_t ahead_bytes_max = std::size_t{16} << 10;
  // The kernel's buffer of what the client has not read: 10,000 clients that stop reading hold
  // 0.6 GB (the kernel doubles it); its own choice goes up to 4 MB each.
  int send_buffer_bytes = 32 << 10;
  // Without a byte taken by the client while some wait. As long as gRPC's calls are given to take
  // their end.
  absl::Duration write_wait_max = absl::Seconds(30);
  // For the rest of a request that was refused before it was read: closing at once would make the
  // kernel throw our answer away.
  absl::Duration linger_wait_max = absl::Seconds(2);

  // --- What all connections may hold ---
  // 10,000 streams and as many again that come and go; an idle one takes some 2 KiB.
  std::size_t connections_max = 20'000;
  // Of one address (of one /64 with IPv6): leaves room for others when one client opens all it can,
  // and for one proxy in front that carries everybody.
  std::size_t connections_per_peer_max = 16'000;
  // Headers and bodies that are being read, of one thread: half of what admission lets in.
  std::size_t input_bytes_max = std::size_t{128} << 20;

  // --- How it ends ---
  // After Stop, for clients to take their last answer; as long as gRPC's have.
  absl::Duration stop_wait_max = absl::Milliseconds(500);

  // How often limits of time are looked at, and Handler::OnTick is called.
  absl::Duration tick = absl::Milliseconds(50);
};

}  // namespace baleen::router::http
