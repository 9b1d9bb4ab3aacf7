// The HTTP port: one acceptor, and loops that own the connections it hands over.
#pragma once

#include <openssl/ssl.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "observability/base/clock.h"
#include "router/server/http/handler.h"
#include "router/server/http/loop.h"
#include "router/server/http/options.h"

namespace baleen::router::http {

// The context of a connection that is being accepted; see security/http_tls.h.
using TlsContexts = std::function<std::shared_ptr<SSL_CTX>()>;

class Server {
 public:
  // Listens, but serves only from Start on. INVALID_ARGUMENT or ALREADY_EXISTS names the address.
  // `tls` null: plain text.
  static absl::StatusOr<std::unique_ptr<Server>> Listen(const Options& options, const Clock& clock,
                                                        TlsContexts tls = nullptr);
  ~Server();

  // "127.0.0.1:8080"
  const std::string& address() const;
  std::size_t loops() const { return loops_.size(); }
  Loop& loop(std::size_t index) { return *loops_[index]; }

  // One handler for each loop; borrowed, and outlive Stop.
  void Start(const std::vector<Handler*>& handlers);
  // Takes no connection any more, lets answers end within stop_wait_max, ends the threads.
  void Stop();

 private:
  class Acceptor;
  explicit Server(const Options& options, const Clock& clock);

  std::vector<std::unique_ptr<Loop>> loops_;
  std::shared_ptr<Acceptor> acceptor_;
  bool stopped_ = false;
};

}  // namespace baleen::router::http
