// Ctrl-C: what it ends depends on what is going on. Signals are real, sent to this process.
#include "tools/cli/terminal/interrupts.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <future>
#include <optional>
#include <string>

#include "tools/cli/terminal/line_input.h"

namespace baleen::cli {
namespace {

class InterruptsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    BlockSignals();
    auto created = Interrupts::Create();
    ASSERT_TRUE(created.ok()) << created.status();
    interrupts_ = *std::move(created);
    ASSERT_EQ(::pipe(keyboard_.data()), 0);
  }
  void TearDown() override {
    for (const int end : keyboard_) ::close(end);
  }

  void Type(std::string_view text) {
    ASSERT_EQ(::write(keyboard_[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  static void Send(int number) { ::kill(::getpid(), number); }

  // Bounded: true when the session ends within ten seconds.
  bool WaitForEnd() {
    pollfd wanted{.fd = interrupts_->number(), .events = POLLIN, .revents = 0};
    return ::poll(&wanted, 1, 10'000) == 1 && interrupts_->ended();
  }

  std::unique_ptr<Interrupts> interrupts_;
  std::array<int, 2> keyboard_{};
};

TEST_F(InterruptsTest, AtThePromptItEndsTheSession) {
  EXPECT_FALSE(interrupts_->ended());
  Send(SIGINT);
  EXPECT_TRUE(WaitForEnd());
}

TEST_F(InterruptsTest, TheFirstCancelsAnAnswerTheSecondEndsTheSession) {
  std::promise<void> first;
  int cancels = 0;
  {
    Interrupts::Answering answering(*interrupts_, [&] {
      if (++cancels == 1) first.set_value();
    });
    Send(SIGINT);
    ASSERT_EQ(first.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
    EXPECT_FALSE(interrupts_->ended());
    Send(SIGINT);
    EXPECT_TRUE(WaitForEnd());
  }
  EXPECT_EQ(cancels, 2);
}

TEST_F(InterruptsTest, TerminationCancelsAndEndsAtOnce) {
  std::promise<void> cancelled;
  Interrupts::Answering answering(*interrupts_, [&] { cancelled.set_value(); });
  Send(SIGTERM);
  EXPECT_TRUE(WaitForEnd());
  EXPECT_EQ(cancelled.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
}

TEST_F(InterruptsTest, AnAnswerThatBeginsAfterTheEndIsCancelledAtOnce) {
  interrupts_->End();
  bool cancelled = false;
  Interrupts::Answering answering(*interrupts_, [&] { cancelled = true; });
  EXPECT_TRUE(cancelled);
}

TEST_F(InterruptsTest, EachAnswerHasItsOwnFirstInterrupt) {
  for (int answer = 0; answer < 2; ++answer) {
    std::promise<void> cancelled;
    Interrupts::Answering answering(*interrupts_, [&] { cancelled.set_value(); });
    Send(SIGINT);
    ASSERT_EQ(cancelled.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
  }
  EXPECT_FALSE(interrupts_->ended());
}

TEST_F(InterruptsTest, LinesComeWhole) {
  LineInput input(keyboard_[0]);
  Type("first\r\nsecond");
  EXPECT_EQ(input.Next(*interrupts_).value(), "first");
  Type(" half\n\nlast");
  EXPECT_EQ(input.Next(*interrupts_).value(), "second half");
  EXPECT_EQ(input.Next(*interrupts_).value(), "");
  ::close(keyboard_[1]);
  keyboard_[1] = -1;
  EXPECT_EQ(input.Next(*interrupts_).value(), "last");
  EXPECT_EQ(input.Next(*interrupts_).value(), std::nullopt);
}

TEST_F(InterruptsTest, ASignalEndsTheWaitForALine) {
  LineInput input(keyboard_[0]);
  Type("unfinished");
  Send(SIGINT);
  EXPECT_EQ(input.Next(*interrupts_).value(), std::nullopt);
}

TEST_F(InterruptsTest, ALineThatIsTooLongIsAnError) {
  LineInput input(keyboard_[0]);
  auto writer = std::async(std::launch::async, [this] {
    const std::string text(LineInput::kLineBytesMax + 2, 'x');
    std::size_t done = 0;
    while (done < text.size()) {
      const ssize_t written = ::write(keyboard_[1], text.data() + done, text.size() - done);
      if (written <= 0) return;
      done += static_cast<std::size_t>(written);
    }
  });
  EXPECT_EQ(input.Next(*interrupts_).status().code(), absl::StatusCode::kResourceExhausted);
  ::close(keyboard_[0]);  // lets the writer go
  keyboard_[0] = -1;
}

TEST_F(InterruptsTest, ReadAllIsBounded) {
  Type("0123456789");
  ::close(keyboard_[1]);
  keyboard_[1] = -1;
  EXPECT_EQ(ReadAll(keyboard_[0], 9).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(InterruptsTest, ReadAllReadsAll) {
  Type("0123456789");
  ::close(keyboard_[1]);
  keyboard_[1] = -1;
  EXPECT_EQ(ReadAll(keyboard_[0], 10).value(), "0123456789");
}

}  // namespace
}  // namespace baleen::cli
