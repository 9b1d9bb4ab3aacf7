// One client connection: requests in, one at a time, answers out.
//
// Belongs to the thread of its loop. Between requests, and while a stream is idle, it holds no
// buffer: it waits until the socket is readable, and reads into the loop's.
#pragma once

#include <openssl/ssl.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/system/error_code.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "router/server/http/handler.h"
#include "router/server/http/message/request_reader.h"
#include "router/server/http/tls_session.h"

namespace baleen::router::http {

class Loop;

class Connection final : public Exchange, public std::enable_shared_from_this<Connection> {
 public:
  Connection(Loop& loop, boost::asio::ip::tcp::socket socket, std::shared_ptr<SSL_CTX> tls,
             std::function<void()> closed);
  ~Connection() override;

  void Start();
  // Looks at the limits of time.
  void OnTick(absl::Duration now);
  // The loop ends: at once if there is nothing to answer.
  void OnStopping();
  // The socket, and what was done for its client, are gone after this.
  void Close();

  // Exchange, for the activity.
  void Respond(Response response) override;
  void Begin(Response head) override;
  void Send(std::string_view piece) override;
  void End() override;
  bool writable() const override { return output_.empty(); }

 private:
  enum class Phase : std::uint8_t {
    kIdle,       // between requests
    kReading,    // some bytes of one are here
    kAnswering,  // it was handed over
    kLingering,  // answered without having been read: the rest is thrown away
    kClosed,
  };

  void WaitReadable();
  void OnReadable(const boost::system::error_code& error);
  // What the socket has, decrypted, appended to ahead_. False: the connection is over.
  bool ReadSocket();
  void ReadRequest();
  // The header is here. False: the request is refused.
  bool TakeHead();
  void HandleRequest();
  // An answer to a request that was not read to its end: nothing can follow it.
  void Refuse(Response response);
  void FinishAnswer();
  void Linger();
  void CountInput();

  // The answer, perhaps without its body for HEAD.
  void WriteResponse(const Response& response);
  // Encrypts if need be, writes what the socket takes now and keeps the rest.
  void Write(std::string_view bytes);
  void WriteSocket(std::string_view bytes);
  void CloseLater();
  void WaitWritable();
  void OnWritable(const boost::system::error_code& error);

  Loop& loop_;
  boost::asio::ip::tcp::socket socket_;
  const std::shared_ptr<SSL_CTX> tls_context_;
  std::unique_ptr<TlsSession> tls_;
  std::function<void()> closed_;

  Phase phase_ = Phase::kIdle;
  absl::Duration read_by_;   // the deadline of kIdle, kReading and kLingering
  absl::Duration write_by_;  // while output_ is not empty
  bool waits_readable_ = false;
  bool waits_writable_ = false;
  std::string ahead_;                      // read, but not yet taken by the reader
  std::unique_ptr<RequestReader> reader_;  // kReading
  std::size_t input_bytes_ = 0;            // of both, as counted by the loop

  // Of the request that is being answered:
  int version_ = 11;
  bool head_only_ = false;
  bool keep_alive_ = false;
  bool read_whole_ = false;
  bool handling_ = false;    // in Handler::Handle
  bool answered_ = false;    // Respond or End was called
  std::string stream_head_;  // Begin was called, and no piece has left
  std::unique_ptr<Activity> activity_;

  std::string output_;  // what the socket has not taken
  std::size_t output_sent_ = 0;
};

}  // namespace baleen::router::http
