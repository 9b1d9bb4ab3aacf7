#include "tools/cli/commands/chat_command.h"

#include <unistd.h>

#include <CLI/CLI.hpp>

#include "observability/process/command_line.h"
#include "tools/cli/session/exit_code.h"

namespace baleen::cli {
namespace {

int Once(const ChatOptions& options, ChatSession& session) {
  const AnswerOutput output = options.json ? AnswerOutput{} : StandardOutput();
  const auto reply = session.Ask(*options.once, output);
  if (!reply.ok()) return ExitWith(reply.status());
  if (options.json) WriteAll(STDOUT_FILENO, ToJson(*reply) + "\n");
  return kExitGood;
}

}  // namespace

void AddChatOptions(CLI::App& command, ChatOptions& options) {
  command.add_option("--router", options.router, "gRPC of a cluster [$BALEEN_ROUTER]")
      ->type_name("HOST:PORT")
      ->check(process::HostPort(1));
  auto* once = command.add_option("--once", options.once, "Ask this, show the answer, end");
  command.add_flag("--json", options.json, "With --once: the reply as one line of JSON")
      ->needs(once)
      ->type_name("");
  command.add_option("--model", options.session.model, "Name of the model [the only one]")
      ->type_name("NAME");
  command.add_option("--system", options.session.system, "System message");
  AddRequestOptions(command, options.session.request);
  command.footer("At the prompt: Ctrl-C cancels an answer, /new starts over, Ctrl-D ends.");
}

int RunChat(const ChatOptions& options) {
  const auto router = RouterAddress(options.router);
  if (!router.ok()) return ExitWithUsage(router.status());
  BlockSignals();
  const auto interrupts = Interrupts::Create();
  if (!interrupts.ok()) return ExitWith(interrupts.status());
  const InferenceClient client(*router);
  ChatSession session(options.session, client, **interrupts);
  if (options.once) return Once(options, session);
  return ExitWith(Converse(session, **interrupts, [](const ChatResult&) {}));
}

}  // namespace baleen::cli
