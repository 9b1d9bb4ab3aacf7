// One thread and the connections that it owns: they share its buffer, its clock and its limits, and
// nothing with those of other threads.
#pragma once

#include <openssl/ssl.h>

#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_set>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "router/server/http/handler.h"
#include "router/server/http/options.h"

namespace baleen::router::http {

class Connection;

class Loop {
 public:
  // `clock` is borrowed.
  Loop(const Options& options, const Clock& clock);
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  // Precondition: joined, or never started.
  ~Loop();

  // `handler` is borrowed and outlives the thread.
  void Start(Handler& handler);
  // No new requests; what runs may end within stop_wait_max, then the thread does.
  void Stop();
  void Join();

  // Soon and in order, on the thread; dropped once that is ending. Any thread.
  void Post(absl::AnyInvocable<void()> work);

  boost::asio::io_context& io_context() { return io_context_; }

  // On the thread: takes a connection over. `tls` null: none. `closed` is called when it is.
  void Adopt(boost::asio::ip::tcp::socket socket, std::shared_ptr<SSL_CTX> tls,
             std::function<void()> closed);

  // For connections.
  const Options& options() const { return options_; }
  Handler& handler() { return *handler_; }
  absl::Duration now() const { return clock_.Monotonic(); }
  std::string_view date();
  bool stopping() const { return stopping_; }
  // What was read last; valid until the next read.
  std::array<char, 64 << 10>& scratch() { return scratch_; }
  // For putting a piece of a stream together; valid until the next one.
  std::string& assembly() { return assembly_; }
  std::size_t& input_bytes() { return input_bytes_; }
  void Remove(const std::shared_ptr<Connection>& connection) { connections_.erase(connection); }

 private:
  void Run();
  void Tick();
  void FinishIfIdle();

  const Options options_;
  const Clock& clock_;
  boost::asio::io_context io_context_;
  boost::asio::steady_timer timer_;
  Handler* handler_ = nullptr;
  std::thread thread_;

  // On the thread only:
  std::unordered_set<std::shared_ptr<Connection>> connections_;
  std::array<char, 64 << 10> scratch_;
  std::string assembly_;
  std::size_t input_bytes_ = 0;
  std::string date_;
  absl::Duration date_until_;
  absl::Duration look_at_;  // when limits of time are next looked at
  bool stopping_ = false;
  absl::Duration stop_by_ = absl::InfiniteDuration();
};

}  // namespace baleen::router::http
