// A reply on a terminal and in a pipe.
#include "tools/cli/terminal/answer_printer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <string>

#include "tools/cli/cluster/descriptor.h"

namespace baleen::cli {
namespace {

class Pipe {
 public:
  Pipe() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    read_ = Descriptor(ends[0]);
    write_ = Descriptor(ends[1]);
  }
  int number() const { return write_.number(); }
  // All that was written so far.
  std::string Close() {
    write_.Close();
    std::array<char, 4096> buffer{};
    const ssize_t got = ::read(read_.number(), buffer.data(), buffer.size());
    return {buffer.data(), static_cast<std::size_t>(got)};
  }

 private:
  Descriptor read_;
  Descriptor write_;
};

void Print(const AnswerOutput& output) {
  AnswerPrinter printer(output);
  printer.Reasoning("let me ");
  printer.Reasoning("");
  printer.Reasoning("think\x1b[2J");
  printer.Answer("4");
  printer.Answer("2\x1b[2J");
  printer.Finish();
}

TEST(AnswerPrinter, BothPartsOnATerminal) {
  Pipe terminal;
  Print({.reasoning = terminal.number(),
         .answer = terminal.number(),
         .reasoning_style = Style(true)});
  EXPECT_EQ(terminal.Close(), "\x1b[2mlet me \x1b[0m\x1b[2mthink[2J\x1b[0m\n\n42[2J\n");
}

TEST(AnswerPrinter, OnlyTheAnswerInAPipeAndAsItIs) {
  Pipe out;
  Pipe err;
  Print({.reasoning = err.number(), .answer = out.number(), .sanitise = false});
  EXPECT_EQ(out.Close(), "42\x1b[2J\n");
  EXPECT_EQ(err.Close(), "let me think[2J\n\n");
}

TEST(AnswerPrinter, AnAnswerWithoutReasoning) {
  Pipe out;
  AnswerPrinter printer({.reasoning = out.number(), .answer = out.number()});
  printer.Answer("hello");
  printer.Finish();
  EXPECT_EQ(out.Close(), "hello\n");
}

TEST(AnswerPrinter, ReasoningThatWasCutShort) {
  Pipe out;
  AnswerPrinter printer({.reasoning = out.number(), .answer = out.number()});
  printer.Reasoning("let me");
  printer.Finish();
  EXPECT_EQ(out.Close(), "let me\n");
}

TEST(AnswerPrinter, NowhereToShowIt) { Print(AnswerOutput{}); }

}  // namespace
}  // namespace baleen::cli
