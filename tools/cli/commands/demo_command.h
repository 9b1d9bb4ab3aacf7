// `baleen demo`, what `make run` calls: runs a cluster, asks it a question whose answer is known,
// shows figures, and takes more questions.
#pragma once

#include <string>
#include <string_view>

#include "tools/cli/client/render.h"
#include "tools/cli/session/local_cluster.h"

namespace baleen::cli {

struct DemoOptions {
  ClusterOptions cluster;
  std::string question = "What is 347 + 589?";
  std::string expect = "936";  // a number that the answer must contain; empty = any answer is right
};

void AddDemoOptions(CLI::App& command, DemoOptions& options);

// On a terminal it stays for more questions until Ctrl-C. 0; 1 when the cluster fails or the answer
// is wrong.
int RunDemo(const DemoOptions& options);

// Whether `text` contains `number`, not as a part of a longer number.
bool ContainsNumber(std::string_view text, std::string_view number);

// Time to first token, tokens/s, ranks, KV bytes.
TableRows FigureRows(const ChatResult& reply);

}  // namespace baleen::cli
