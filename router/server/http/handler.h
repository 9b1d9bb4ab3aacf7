// The seam between HTTP and those who answer. Everything here happens on the thread of the
// connection's loop.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "router/server/http/message/message.h"

namespace baleen::router::http {

// One request's way back to its client. Lives as long as its Activity.
class Exchange {
 public:
  virtual ~Exchange() = default;

  // The whole answer. Nothing may follow.
  virtual void Respond(Response response) = 0;

  // An answer in pieces. `head` (its body is not looked at) leaves with the first piece. Each piece
  // is written at once if the client takes it.
  virtual void Begin(Response head) = 0;
  virtual void Send(std::string_view piece) = 0;
  virtual void End() = 0;

  // Everything written so far has been taken. While it has not, whoever has more to send keeps it
  // back, and is told by Activity::OnWritable.
  virtual bool writable() const = 0;
};

// What is done for one request. Destroyed when its answer is written, or at once when the client
// has gone, reads too slowly, or the server stops: then nobody wants an answer any more.
class Activity {
 public:
  virtual ~Activity() = default;
  virtual void OnWritable() {}
};

// One for each loop.
class Handler {
 public:
  virtual ~Handler() = default;

  // The header of a request is here: an answer if it is refused as it is. Its body is then not
  // read.
  virtual std::optional<Response> Refuse(const RequestHead& head) = 0;
  // The whole request is here. May answer at once, and give null then; must not destroy the
  // exchange.
  virtual std::unique_ptr<Activity> Handle(Request request, Exchange& exchange) = 0;
  // A request that HTTP itself refuses (malformed, too large, too slow): what to tell the client.
  virtual Response MakeError(int code, std::string_view why) = 0;
  // Every Options::tick.
  virtual void OnTick() {}
};

}  // namespace baleen::router::http
