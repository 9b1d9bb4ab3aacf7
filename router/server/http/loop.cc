#include "router/server/http/loop.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <utility>
#include <vector>

#include "observability/base/check.h"
#include "router/server/http/connection.h"

namespace baleen::router::http {
namespace {

// All of a loop's connections are looked at one after the other: 10,000 of them take half a
// millisecond.
constexpr absl::Duration kLookEvery = absl::Milliseconds(200);

}  // namespace

Loop::Loop(const Options& options, const Clock& clock)
    : options_(options),
      clock_(clock),
      io_context_(1),
      timer_(io_context_),
      date_until_(-absl::InfiniteDuration()),
      look_at_(-absl::InfiniteDuration()) {}

Loop::~Loop() { BALEEN_CHECK(!thread_.joinable(), "a loop is joined before it goes"); }

void Loop::Start(Handler& handler) {
  handler_ = &handler;
  thread_ = std::thread([this] { Run(); });
}

void Loop::Stop() {
  Post([this] {
    if (stopping_) return;
    stopping_ = true;
    stop_by_ = now() + options_.stop_wait_max;
    // A copy: closing takes them out.
    const std::vector<std::shared_ptr<Connection>> all(connections_.begin(), connections_.end());
    for (const auto& connection : all) connection->OnStopping();
    FinishIfIdle();
  });
}

void Loop::Join() {
  if (thread_.joinable()) thread_.join();
}

void Loop::Post(absl::AnyInvocable<void()> work) {
  boost::asio::post(io_context_, [work = std::move(work)]() mutable { work(); });
}

void Loop::Adopt(boost::asio::ip::tcp::socket socket, std::shared_ptr<SSL_CTX> tls,
                 std::function<void()> closed) {
  auto connection =
      std::make_shared<Connection>(*this, std::move(socket), std::move(tls), std::move(closed));
  connections_.insert(connection);
  connection->Start();
}

std::string_view Loop::date() {
  if (now() >= date_until_) {
    date_until_ = now() + absl::Seconds(1);
    date_ = absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", clock_.Wall(), absl::UTCTimeZone());
  }
  return date_;
}

void Loop::Run() {
  Tick();
  io_context_.run();
  // What was posted before the end: it may hold the last reference to an activity, which must not
  // outlive the handler.
  timer_.cancel();
  io_context_.restart();
  io_context_.poll();
}

void Loop::Tick() {
  if (now() >= look_at_) {
    look_at_ = now() + std::max(kLookEvery, options_.tick);
    const std::vector<std::shared_ptr<Connection>> all(connections_.begin(), connections_.end());
    for (const auto& connection : all) connection->OnTick(now());
  }
  handler_->OnTick();
  FinishIfIdle();
  timer_.expires_after(absl::ToChronoNanoseconds(options_.tick));
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) Tick();
  });
}

void Loop::FinishIfIdle() {
  if (!stopping_) return;
  if (now() >= stop_by_) {
    const std::vector<std::shared_ptr<Connection>> all(connections_.begin(), connections_.end());
    for (const auto& connection : all) connection->Close();
  }
  if (connections_.empty()) io_context_.stop();
}

}  // namespace baleen::router::http
