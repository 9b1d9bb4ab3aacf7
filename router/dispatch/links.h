// The two seams of dispatch. Real: streams of router/cluster and calls of router/server. Twins:
// tests/fakes.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "router/dispatch/messages.h"

namespace baleen::router {

// The way to one attached worker. Used on the dispatch thread only; must not call back into the
// dispatcher.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  // Frames arrive in order or not at all: a link that cannot take a frame is broken, and says so
  // later through Dispatcher::OnLost.
  virtual void Send(RouterFrame frame) = 0;
  // Ends the stream with `why`. Nothing more is sent; the link may still be referred to until
  // OnLost.
  virtual void Close(absl::Status why) = 0;
};

// Where replies go. Used on the dispatch thread only; must neither block nor call back into the
// dispatcher.
class ReplySink {
 public:
  virtual ~ReplySink() = default;
  // The next token of a request: index 0, 1, 2, ... False: no room; the request is then ended.
  virtual bool Token(contract::RequestId id, ReplyToken token) = 0;
  // Log-probabilities of the next tokens of the prompt, when asked for: all of them, in order and
  // each once, before the first token. False as with Token.
  virtual bool PromptLogprobs(contract::RequestId /*id*/, router::PromptLogprobs /*logprobs*/) {
    return true;
  }
  // The one ending of a request, after all its tokens.
  virtual void End(contract::RequestId id, Ending ending) = 0;
  // For a request with `explain`, whenever it is started, which is before its first token: why it
  // went where it went, for people. One line of printable ASCII, at most kExplanationBytesMax.
  virtual void Routed(contract::RequestId /*id*/, std::string /*explanation*/) {}
  // All that one event (a worker's message, a call of a client, a tick) had for this sink has been
  // given to it: the moment to wake up whoever takes it. Once for each event and sink touched.
  virtual void Flush() {}
};

// Dispatch as the client side sees it. Any thread.
class RequestPort {
 public:
  virtual ~RequestPort() = default;
  virtual void Submit(Request request) = 0;
  // The client is gone. Its request ends with kCancelled unless it has ended already.
  virtual void Cancel(contract::RequestId id) = 0;
};

}  // namespace baleen::router
