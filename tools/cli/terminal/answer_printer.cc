#include "tools/cli/terminal/answer_printer.h"

#include <unistd.h>

namespace baleen::cli {

AnswerOutput StandardOutput() {
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  const int reasoning = terminal ? STDOUT_FILENO : STDERR_FILENO;
  return {.reasoning = reasoning,
          .answer = STDOUT_FILENO,
          .reasoning_style = Style(ColoursOn(reasoning)),
          .sanitise = terminal};
}

void AnswerPrinter::Reasoning(std::string_view delta) {
  if (delta.empty() || output_.reasoning < 0) return;
  reasoning_shown_ = true;
  // Always clean: reasoning is for people only.
  WriteAll(output_.reasoning, output_.reasoning_style.Paint(Look::kDim, WithoutControls(delta)));
}

void AnswerPrinter::Answer(std::string_view delta) {
  if (delta.empty() || output_.answer < 0) return;
  if (reasoning_shown_ && !answer_shown_) WriteAll(output_.reasoning, "\n\n");
  answer_shown_ = true;
  WriteAll(output_.answer, output_.sanitise ? WithoutControls(delta) : std::string(delta));
}

void AnswerPrinter::Finish() {
  if (answer_shown_) {
    WriteAll(output_.answer, "\n");
  } else if (reasoning_shown_) {
    WriteAll(output_.reasoning, "\n");
  }
}

}  // namespace baleen::cli
