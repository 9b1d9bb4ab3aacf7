#include "router/server/http/connection.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <boost/asio/ip/tcp.hpp>
#include <cerrno>
#include <iterator>
#include <utility>

#include "observability/base/check.h"
#include "router/server/http/loop.h"

namespace baleen::router::http {
namespace {

// Capacity above which an empty buffer is given back.
constexpr std::size_t kKeptBytesMax = 512;

void Shrink(std::string& buffer) {
  if (buffer.empty() && buffer.capacity() > kKeptBytesMax) std::string().swap(buffer);
}

}  // namespace

Connection::Connection(Loop& loop, boost::asio::ip::tcp::socket socket,
                       std::shared_ptr<SSL_CTX> tls, std::function<void()> closed)
    : loop_(loop),
      socket_(std::move(socket)),
      tls_context_(std::move(tls)),
      closed_(std::move(closed)) {
  if (tls_context_ != nullptr) tls_ = std::make_unique<TlsSession>(tls_context_.get());
}

Connection::~Connection() = default;

void Connection::Start() {
  // The first request is due at once; later ones may take their time.
  read_by_ = loop_.now() + loop_.options().header_wait_max;
  if (loop_.stopping()) {
    Close();
    return;
  }
  WaitReadable();
}

void Connection::OnTick(absl::Duration now) {
  if (!output_.empty() && now >= write_by_) {
    Close();  // the client does not read
    return;
  }
  if (phase_ == Phase::kAnswering || now < read_by_) return;
  if (phase_ == Phase::kReading && tls_ == nullptr) {
    Refuse(loop_.handler().MakeError(408, "the request took too long"));
    return;
  }
  Close();
}

void Connection::OnStopping() {
  keep_alive_ = false;
  if (phase_ != Phase::kAnswering) Close();
}

void Connection::Close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  const std::shared_ptr<Connection> self = shared_from_this();
  loop_.input_bytes() -= input_bytes_;
  input_bytes_ = 0;
  activity_.reset();
  reader_.reset();
  boost::system::error_code ignored;
  socket_.close(ignored);
  loop_.Remove(self);
  if (closed_) std::exchange(closed_, nullptr)();
}

// --- Reading ---

void Connection::WaitReadable() {
  if (waits_readable_ || phase_ == Phase::kClosed) return;
  waits_readable_ = true;
  socket_.async_wait(boost::asio::ip::tcp::socket::wait_read,
                     [self = shared_from_this()](const boost::system::error_code& error) {
                       self->OnReadable(error);
                     });
}

void Connection::OnReadable(const boost::system::error_code& error) {
  waits_readable_ = false;
  if (phase_ == Phase::kClosed) return;
  if (error || !ReadSocket()) {
    // End of the stream. While an answer is written that means that nobody waits for it: clients
    // that only close their half are not told apart from those that have gone.
    Close();
    return;
  }
  if (phase_ == Phase::kLingering) {
    ahead_.clear();
  } else if (phase_ == Phase::kAnswering) {
    if (ahead_.size() > loop_.options().ahead_bytes_max) {
      Close();
      return;
    }
  } else {
    ReadRequest();
  }
  CountInput();
  WaitReadable();
}

bool Connection::ReadSocket() {
  auto& scratch = loop_.scratch();
  const ssize_t read =
      ::recv(socket_.native_handle(), scratch.data(), scratch.size(), MSG_DONTWAIT);
  if (read < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
  if (read == 0) return false;
  const std::string_view bytes(scratch.data(), static_cast<std::size_t>(read));
  if (phase_ == Phase::kLingering) return true;
  if (tls_ == nullptr) {
    ahead_.append(bytes);
    return true;
  }
  const bool good = tls_->Decrypt(bytes, &ahead_);
  std::string answer;  // of the handshake, or an alert
  tls_->TakeOutput(&answer);
  if (!answer.empty()) WriteSocket(answer);
  return good && phase_ != Phase::kClosed;
}

void Connection::ReadRequest() {
  while ((phase_ == Phase::kIdle || phase_ == Phase::kReading) && !ahead_.empty()) {
    if (phase_ == Phase::kIdle) {
      phase_ = Phase::kReading;
      read_by_ = loop_.now() + loop_.options().header_wait_max;
      reader_ = std::make_unique<RequestReader>(
          ReaderLimits{.header_bytes_max = loop_.options().header_bytes_max,
                       .body_bytes_max = loop_.options().body_bytes_max});
    }
    const RequestReader::State before = reader_->state();
    const std::size_t size = ahead_.size();
    reader_->Read(ahead_);
    if (reader_->state() == RequestReader::State::kFailed) {
      Refuse(loop_.handler().MakeError(reader_->error_code(), reader_->error()));
      return;
    }
    if (before == RequestReader::State::kHeader && reader_->state() != before && !TakeHead()) {
      return;
    }
    if (reader_->state() == RequestReader::State::kDone) {
      HandleRequest();
    } else if (ahead_.size() == size && before == reader_->state()) {
      return;  // not enough for the next step
    }
  }
}

bool Connection::TakeHead() {
  const RequestHead& head = reader_->head();
  version_ = head.version;
  head_only_ = head.method == "HEAD";
  keep_alive_ = head.keep_alive && !loop_.stopping();
  read_by_ = loop_.now() + loop_.options().request_wait_max;
  if (std::optional<Response> refusal = loop_.handler().Refuse(head)) {
    // Without a body the request has been read, and the connection can go on.
    if (reader_->state() == RequestReader::State::kDone) {
      reader_.reset();
      phase_ = Phase::kAnswering;
      read_whole_ = true;
      Respond(*std::move(refusal));
    } else {
      Refuse(*std::move(refusal));
    }
    return false;
  }
  if (head.expects_continue && reader_->state() == RequestReader::State::kBody && ahead_.empty()) {
    Write("HTTP/1.1 100 Continue\r\n\r\n");
  }
  return phase_ == Phase::kReading;
}

void Connection::HandleRequest() {
  Request request = reader_->Take();
  reader_.reset();
  phase_ = Phase::kAnswering;
  read_whole_ = true;
  answered_ = false;
  Shrink(ahead_);
  CountInput();
  handling_ = true;
  activity_ = loop_.handler().Handle(std::move(request), *this);
  handling_ = false;
  if (phase_ == Phase::kAnswering && answered_) FinishAnswer();
}

void Connection::Refuse(Response response) {
  reader_.reset();
  phase_ = Phase::kAnswering;
  keep_alive_ = false;
  read_whole_ = false;
  Respond(std::move(response));
}

void Connection::Linger() {
  phase_ = Phase::kLingering;
  read_by_ = loop_.now() + loop_.options().linger_wait_max;
  boost::system::error_code ignored;
  socket_.shutdown(boost::asio::ip::tcp::socket::shutdown_send, ignored);
  ahead_.clear();
  Shrink(ahead_);
  CountInput();
}

void Connection::CountInput() {
  if (phase_ == Phase::kClosed) return;
  const std::size_t bytes = ahead_.size() + (reader_ == nullptr ? 0 : reader_->body_bytes());
  std::size_t& all = loop_.input_bytes();
  all = all - input_bytes_ + bytes;
  input_bytes_ = bytes;
  if (phase_ == Phase::kReading && all > loop_.options().input_bytes_max) {
    Refuse(
        loop_.handler().MakeError(503, fmt::format("more than {} bytes of requests are being read",
                                                   loop_.options().input_bytes_max)));
  }
}

// --- Answering ---

void Connection::Respond(Response response) {
  BALEEN_CHECK(phase_ == Phase::kAnswering || phase_ == Phase::kClosed, "a request waits");
  if (phase_ == Phase::kClosed) return;
  const HeadForm form{.version = version_,
                      .keep_alive = keep_alive_,
                      .length = response.body.size(),
                      .date = loop_.date()};
  std::string bytes = WriteHead(response, form);
  if (!head_only_) bytes += response.body;
  answered_ = true;
  Write(bytes);
  FinishAnswer();
}

void Connection::Begin(Response head) {
  if (phase_ == Phase::kClosed) return;
  if (version_ < 11) keep_alive_ = false;  // the end of the stream is the end of the connection
  stream_head_ =
      WriteHead(head, {.version = version_, .keep_alive = keep_alive_, .date = loop_.date()});
}

void Connection::Send(std::string_view piece) {
  if (phase_ == Phase::kClosed || piece.empty()) return;
  std::string& bytes = loop_.assembly();
  bytes.assign(stream_head_);
  stream_head_.clear();
  Shrink(stream_head_);
  if (version_ >= 11) {
    fmt::format_to(std::back_inserter(bytes), "{:x}\r\n", piece.size());
    bytes += piece;
    bytes += "\r\n";
  } else {
    bytes += piece;
  }
  Write(bytes);
}

void Connection::End() {
  if (phase_ == Phase::kClosed) return;
  answered_ = true;
  std::string bytes = std::exchange(stream_head_, {});
  if (version_ >= 11) bytes += "0\r\n\r\n";
  if (!bytes.empty()) Write(bytes);
  FinishAnswer();
}

// Goes on to the next request once the answer has been written. Not from within what the activity
// does: it is destroyed here.
void Connection::FinishAnswer() {
  if (phase_ != Phase::kAnswering || handling_ || !answered_ || !output_.empty()) return;
  if (activity_ != nullptr) {
    // Its own call may be on the stack.
    loop_.Post([self = shared_from_this(), activity = std::move(activity_)]() mutable {
      activity.reset();
      self->FinishAnswer();
    });
    return;
  }
  answered_ = false;
  if (!read_whole_) {
    Linger();
    return;
  }
  if (!keep_alive_) {
    Close();
    return;
  }
  phase_ = Phase::kIdle;
  read_by_ = loop_.now() + loop_.options().idle_wait_max;
  if (ahead_.empty()) return;
  // The next request came early. Not from here: answers to many in a row would nest.
  loop_.Post([self = shared_from_this()] {
    if (self->phase_ != Phase::kIdle) return;
    self->ReadRequest();
    self->CountInput();
  });
}

// --- Writing ---

void Connection::Write(std::string_view bytes) {
  if (phase_ == Phase::kClosed) return;
  if (tls_ == nullptr) {
    WriteSocket(bytes);
    return;
  }
  std::string cipher;
  const bool good = tls_->Encrypt(bytes);
  tls_->TakeOutput(&cipher);
  if (good) {
    WriteSocket(cipher);
  } else {
    CloseLater();
  }
}

// Not from within what the activity does.
void Connection::CloseLater() {
  keep_alive_ = false;
  loop_.Post([self = shared_from_this()] { self->Close(); });
}

void Connection::WriteSocket(std::string_view bytes) {
  if (output_.empty()) {
    const ssize_t sent =
        ::send(socket_.native_handle(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == static_cast<ssize_t>(bytes.size())) return;
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
      CloseLater();
      return;
    }
    if (sent > 0) bytes.remove_prefix(static_cast<std::size_t>(sent));
    write_by_ = loop_.now() + loop_.options().write_wait_max;
  }
  output_.append(bytes);
  WaitWritable();
}

void Connection::WaitWritable() {
  if (waits_writable_ || phase_ == Phase::kClosed) return;
  waits_writable_ = true;
  socket_.async_wait(boost::asio::ip::tcp::socket::wait_write,
                     [self = shared_from_this()](const boost::system::error_code& error) {
                       self->OnWritable(error);
                     });
}

void Connection::OnWritable(const boost::system::error_code& error) {
  waits_writable_ = false;
  if (phase_ == Phase::kClosed) return;
  const ssize_t sent = error ? -1
                             : ::send(socket_.native_handle(), output_.data() + output_sent_,
                                      output_.size() - output_sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && (error || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))) {
    Close();
    return;
  }
  if (sent > 0) {
    output_sent_ += static_cast<std::size_t>(sent);
    write_by_ = loop_.now() + loop_.options().write_wait_max;
  }
  if (output_sent_ < output_.size()) {
    WaitWritable();
    return;
  }
  output_.clear();
  output_sent_ = 0;
  Shrink(output_);
  if (phase_ != Phase::kAnswering) return;
  if (answered_) {
    FinishAnswer();
  } else if (activity_ != nullptr) {
    activity_->OnWritable();
  }
}

}  // namespace baleen::router::http
