// `baleen chat`: talks to a cluster from a terminal or a script.
#pragma once

#include <optional>
#include <string>

#include "tools/cli/session/chat_session.h"

namespace CLI {
class App;
}

namespace baleen::cli {

struct ChatOptions {
  RouterEndpoint router;
  std::optional<std::string> once;
  bool json = false;
  ChatSessionOptions session;
};

void AddChatOptions(CLI::App& command, ChatOptions& options);
int RunChat(const ChatOptions& options);

}  // namespace baleen::cli
