// Shows a reply while it streams: the reasoning dimmed, the answer plain.
#pragma once

#include <string_view>

#include "tools/cli/terminal/style.h"

namespace baleen::cli {

struct AnswerOutput {
  int reasoning = -1;  // descriptor; -1 = not shown
  int answer = -1;
  Style reasoning_style{false};
  bool sanitise = true;  // drop control characters: right for a terminal, wrong for a pipe
};

// Where a reply is shown: a terminal gets both parts; when the answer goes to a pipe or file, the
// reasoning goes to stderr.
AnswerOutput StandardOutput();

class AnswerPrinter {
 public:
  explicit AnswerPrinter(const AnswerOutput& output) : output_(output) {}

  void Reasoning(std::string_view delta);
  void Answer(std::string_view delta);
  // Ends the last line.
  void Finish();

 private:
  const AnswerOutput output_;
  bool reasoning_shown_ = false;
  bool answer_shown_ = false;
};

}  // namespace baleen::cli
