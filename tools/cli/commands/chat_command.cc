#include "tools/cli/commands/chat_command.h"

#include <unistd.h>

#include <CLI/CLI.hpp>

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
  AddRouterOptions(command, options.router);
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
  RouterEndpoint router = options.router;
  const auto address = RouterAddress(router.address);
  if (!address.ok()) return ExitWithUsage(address.status());
  router.address = *address;
  const auto client = InferenceClient::Open(router);
  if (!client.ok()) return ExitWith(client.status());
  BlockSignals();
  const auto interrupts = Interrupts::Create();
  if (!interrupts.ok()) return ExitWith(interrupts.status());
  ChatSession session(options.session, **client, **interrupts);
  if (options.once) return Once(options, session);
  return ExitWith(Converse(session, **interrupts, [](const ChatResult&) {}));
}

}  // namespace baleen::cli
