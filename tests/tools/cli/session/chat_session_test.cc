// A conversation that is interrupted.
#include "tools/cli/session/chat_session.h"

#include <gtest/gtest.h>

namespace baleen::cli {
namespace {

// It said "CANCELLED: CANCELLED".
TEST(ChatSession, SaysThatAnAnswerWasInterrupted) {
  BlockSignals();
  const auto interrupts = Interrupts::Create();
  ASSERT_TRUE(interrupts.ok()) << interrupts.status();
  (*interrupts)->End();  // as a signal that is there before the call begins
  const InferenceClient client("127.0.0.1:1");
  ChatSession session({}, client, **interrupts);
  const auto reply = session.Ask("hello", AnswerOutput{});
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(reply.status().message(), "cancelled: interrupted");
}

}  // namespace
}  // namespace baleen::cli
