#include "tools/cli/session/chat_session.h"

#include <unistd.h>

#include <optional>
#include <utility>

#include "observability/base/status_macros.h"
#include "proto/contract/status.h"
#include "tools/cli/session/exit_code.h"

namespace baleen::cli {
namespace {

constexpr char kStartOver[] = "/new";

void AddMessage(const char* role, const std::string& content, v1::ChatRequest& request) {
  v1::Message& message = *request.add_messages();
  message.set_role(role);
  message.set_content(content);
}

bool IsBlank(const std::string& line) { return line.find_first_not_of(" \t") == std::string::npos; }

}  // namespace

ChatSession::ChatSession(const ChatSessionOptions& options, const InferenceClient& client,
                         Interrupts& interrupts)
    : options_(options), client_(client), interrupts_(interrupts) {
  conversation_.set_model(options_.model);
  Fill(options_.request, *conversation_.mutable_sampling(), *conversation_.mutable_stop());
  StartOver();
}

void ChatSession::StartOver() {
  conversation_.clear_messages();
  if (!options_.system.empty()) AddMessage("system", options_.system, conversation_);
}

absl::StatusOr<ChatResult> ChatSession::Ask(const std::string& question,
                                            const AnswerOutput& output) {
  BALEEN_RETURN_IF_ERROR(CheckUtf8("the question", question));
  BALEEN_RETURN_IF_ERROR(CheckUtf8("the system message", options_.system));
  BALEEN_RETURN_IF_ERROR(CheckUtf8("the model's name", options_.model));
  v1::ChatRequest request = conversation_;
  AddMessage("user", question, request);
  Cancellation cancellation;
  Interrupts::Answering answering(interrupts_, [&] { cancellation.Cancel(); });
  AnswerPrinter printer(output);
  ChatResult result;
  absl::Status malformed;
  const absl::Status status = client_.Chat(request, options_.request.within(), cancellation,
                                           [&](const v1::ChatChunk& chunk) {
                                             if (malformed.ok()) malformed = Append(chunk, result);
                                             if (!malformed.ok()) return cancellation.Cancel();
                                             printer.Reasoning(chunk.reasoning_delta());
                                             printer.Answer(chunk.delta());
                                             if (!StandardOutputStatus().ok()) {
                                               cancellation.Cancel();
                                             }
                                           });
  printer.Finish();
  BALEEN_RETURN_IF_ERROR(malformed);
  if (absl::IsCancelled(status) && cancellation.cancelled()) {
    return contract::MakeStatus(contract::Reason::kCancelled, "interrupted");
  }
  BALEEN_RETURN_IF_ERROR(status);
  BALEEN_RETURN_IF_ERROR(CheckEnded(result.finish_reason));
  conversation_ = std::move(request);
  AddMessage("assistant", result.content, conversation_);
  return result;
}

absl::Status Converse(ChatSession& session, Interrupts& interrupts,
                      const std::function<void(const ChatResult&)>& on_reply) {
  const bool terminal = ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
  const Style style(ColoursOn(STDOUT_FILENO));
  LineInput input(STDIN_FILENO);
  while (!interrupts.ended() && StandardOutputStatus().ok()) {
    if (terminal) WriteAll(STDOUT_FILENO, style.Paint(Look::kBold, "> "));
    BALEEN_ASSIGN_OR_RETURN(const std::optional<std::string> line, input.Next(interrupts));
    if (!line) break;
    if (IsBlank(*line)) continue;
    if (*line == kStartOver) {
      session.StartOver();
      continue;
    }
    const auto reply = session.Ask(*line, StandardOutput());
    if (reply.ok()) {
      on_reply(*reply);
    } else if (terminal) {
      ExitWith(reply.status());  // says it; the next question may fare better
    } else {
      return reply.status();
    }
  }
  if (terminal) WriteAll(STDOUT_FILENO, "\n");
  return absl::OkStatus();
}

}  // namespace baleen::cli
