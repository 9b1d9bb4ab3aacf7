// The small parts of dispatch: order of tokens, the table of workers, errors of workers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "router/dispatch/reply_order.h"
#include "router/dispatch/worker_status.h"
#include "router/dispatch/worker_table.h"
#include "tests/fakes/dispatch_twins.h"

namespace baleen::router {
namespace {

using contract::Reason;
using ::testing::ElementsAre;
using Verdict = ReplyOrder::Verdict;

std::vector<std::int32_t> Accept(ReplyOrder& order, std::uint32_t sequence, Verdict expected) {
  std::vector<ReplyToken> ready;
  EXPECT_EQ(order.Accept(sequence, {.id = static_cast<std::int32_t>(sequence) + 100}, ready),
            expected);
  std::vector<std::int32_t> ids;
  for (const ReplyToken& token : ready) ids.push_back(token.id);
  return ids;
}

TEST(ReplyOrder, DeliversInOrderWhateverCameFirst) {
  ReplyOrder order;
  EXPECT_THAT(Accept(order, 2, Verdict::kAccepted), ElementsAre());
  EXPECT_THAT(Accept(order, 1, Verdict::kAccepted), ElementsAre());
  EXPECT_THAT(Accept(order, 0, Verdict::kAccepted), ElementsAre(100, 101, 102));
  EXPECT_THAT(Accept(order, 4, Verdict::kAccepted), ElementsAre());
  EXPECT_THAT(Accept(order, 3, Verdict::kAccepted), ElementsAre(103, 104));
  EXPECT_EQ(order.next(), 5u);
}

TEST(ReplyOrder, TellsDuplicatesApart) {
  ReplyOrder order;
  Accept(order, 0, Verdict::kAccepted);
  Accept(order, 2, Verdict::kAccepted);
  EXPECT_THAT(Accept(order, 0, Verdict::kDuplicate), ElementsAre());
  EXPECT_THAT(Accept(order, 2, Verdict::kDuplicate), ElementsAre());
  EXPECT_THAT(Accept(order, 1, Verdict::kAccepted), ElementsAre(101, 102));
}

TEST(ReplyOrder, KeepsAFewEarlyTokensOnly) {
  ReplyOrder order;
  for (std::uint32_t i = 1; i <= kEarlyTokensMax; ++i) Accept(order, i, Verdict::kAccepted);
  Accept(order, kEarlyTokensMax + 1, Verdict::kTooEarly);
  EXPECT_EQ(Accept(order, 0, Verdict::kAccepted).size(), kEarlyTokensMax + 1);
}

TEST(ReplyOrder, RestartForgetsEarlyTokens) {
  ReplyOrder order;
  Accept(order, 1, Verdict::kAccepted);
  order.Restart();
  EXPECT_THAT(Accept(order, 0, Verdict::kAccepted), ElementsAre(100));
}

TEST(WorkerTable, WorkCountsUntilReportedAndUntilGivenBack) {
  WorkerTable table;
  MemoryLink link;
  table.Add({1}, std::make_shared<const WorkerInfo>(MakeWorkerInfo("d", Role::kDecode)), link);
  const Work work{.sequences = 1, .prompt_tokens = 10, .context_tokens = 30, .kv_blocks = 2};
  const Grant grant = table.Take({1}, work);
  EXPECT_EQ(table.view().workers[0].Sequences(), 1u);
  EXPECT_EQ(table.view().workers[0].PromptTokensPending(), 10u);
  EXPECT_EQ(table.view().workers[0].KvBlocks(), 2u);

  // A report from before the work arrived: what this router has there still counts.
  table.SetLoad({1}, {});
  EXPECT_EQ(table.view().workers[0].Sequences(), 1u);
  EXPECT_EQ(table.view().workers[0].ContextTokens(), 30u);
  // A report that has the work in it, and another router's: counted once.
  table.SetLoad({1}, {.sequences_running = 3, .context_tokens_held = 90, .kv_blocks_used = 6});
  EXPECT_EQ(table.view().workers[0].Sequences(), 3u);
  EXPECT_EQ(table.view().workers[0].KvBlocks(), 6u);

  // Its end comes after a report without it, and must not be taken out of that a second time: what
  // is left there is others' work, of which this one's whole prompt was once taken.
  table.SetLoad({1}, {.sequences_running = 2,
                      .prompt_tokens_pending = 7,
                      .context_tokens_held = 60,
                      .kv_blocks_used = 4});
  table.GiveBack(grant);
  EXPECT_EQ(table.view().workers[0].own, Work{});
  EXPECT_EQ(table.view().workers[0].Sequences(), 2u);
  EXPECT_EQ(table.view().workers[0].PromptTokensPending(), 7u);
  EXPECT_EQ(table.view().workers[0].ContextTokens(), 60u);
  EXPECT_EQ(table.view().workers[0].KvBlocks(), 4u);
  const Grant unreported = table.Take({1}, work);
  table.GiveBack(unreported);
  EXPECT_EQ(table.view().workers[0].Sequences(), 2u);
  EXPECT_EQ(table.view().workers[0].since_report, Work{});
  table.Remove({1});
  table.GiveBack(unreported);
  table.Send({1}, DrainFrame{});
  EXPECT_TRUE(link.frames.empty()) << "nothing reaches a worker that is gone";
  EXPECT_EQ(table.NameOf({1}), "");
}

struct ErrorCase {
  absl::Status status;
  Reason reason;
  std::string message;
};

TEST(WorkerStatus, KeepsTheReasonOrFindsTheClosest) {
  const std::vector<ErrorCase> cases = {
      {contract::MakeStatus(Reason::kQueueFull, "256 wait"), Reason::kQueueFull,
       "queue_full: worker d: 256 wait"},
      {contract::MakeStatus(Reason::kNumericFault, "NaN"), Reason::kNumericFault,
       "numeric_fault: worker d: NaN"},
      {contract::MakeStatus(Reason::kCancelled, "x"), Reason::kWorkerLost,
       "worker_lost: worker d: x"},
      {absl::ResourceExhaustedError("full"), Reason::kQueueFull, "queue_full: worker d: full"},
      {absl::UnavailableError("bye"), Reason::kWorkerLost, "worker_lost: worker d: bye"},
      {absl::DeadlineExceededError("late"), Reason::kDeadlineExceeded,
       "deadline_exceeded: worker d: late"},
      {absl::DataLossError("odd"), Reason::kInternal, "internal: worker d: odd"},
  };
  for (const ErrorCase& c : cases) {
    const absl::Status status = WorkerError("d", c.status);
    EXPECT_EQ(contract::ReasonOf(status), c.reason) << c.status;
    EXPECT_EQ(std::string(status.message()), c.message);
  }
}

TEST(WorkerStatus, WhatAnotherWorkerMayCure) {
  for (const contract::ReasonRow& row : contract::ReasonTable()) {
    const bool cured = row.reason == Reason::kQueueFull || row.reason == Reason::kWorkerLost ||
                       row.reason == Reason::kTransferFailed || row.reason == Reason::kDraining;
    EXPECT_EQ(CuredElsewhere(row.reason), cured) << row.name;
  }
}

}  // namespace
}  // namespace baleen::router
