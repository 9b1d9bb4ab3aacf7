// A conversation with a cluster: what was said, and one answer after the other.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "proto/baleen/v1/inference.pb.h"
#include "tools/cli/client/inference_client.h"
#include "tools/cli/client/render.h"
#include "tools/cli/client/request_options.h"
#include "tools/cli/terminal/answer_printer.h"
#include "tools/cli/terminal/interrupts.h"
#include "tools/cli/terminal/line_input.h"

namespace baleen::cli {

struct ChatSessionOptions {
  std::string model;   // empty = the only one
  std::string system;  // empty = none
  RequestOptions request;
};

// One thread. Borrows client and interrupts.
class ChatSession {
 public:
  ChatSession(const ChatSessionOptions& options, const InferenceClient& client,
              Interrupts& interrupts);

  // Sends the conversation and `question`, shows the reply on `output` as it comes, and remembers
  // both when it is complete. CANCELLED after Ctrl-C; what failed is not remembered.
  absl::StatusOr<ChatResult> Ask(const std::string& question, const AnswerOutput& output);

  // Forgets what was said, except the system message.
  void StartOver();

 private:
  const ChatSessionOptions options_;
  const InferenceClient& client_;
  Interrupts& interrupts_;
  v1::ChatRequest conversation_;
};

// Questions from standard input until it ends, or Ctrl-C at the prompt. On a terminal, a prompt is
// shown and an error does not end it. Each complete reply goes to `on_reply`. Returns the error
// that ended it, if one did.
absl::Status Converse(ChatSession& session, Interrupts& interrupts,
                      const std::function<void(const ChatResult&)>& on_reply);

}  // namespace baleen::cli
