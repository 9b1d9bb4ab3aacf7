// The loopback AllToAll under the conformance suite, and the plan that all implementations share.
#include "worker/expert_parallel/loopback_all_to_all.h"

#include <gmock/gmock.h>

#include "tests/worker/expert_parallel/all_to_all_conformance.h"
#include "worker/expert_parallel/dispatch_plan.h"

namespace baleen::worker {
namespace {

class LoopbackTestGroup final : public TestGroup {
 public:
  explicit LoopbackTestGroup(const AllToAllShape& shape)
      : group_(LoopbackGroup::Make(shape).value()) {}
  std::unique_ptr<GroupEndpoint> Join(std::int32_t rank) override { return group_->Join(rank); }

 private:
  const std::unique_ptr<LoopbackGroup> group_;
};

}  // namespace

std::vector<GroupMaker> Groups() {
  return {
      {.name = "Loopback", .make = [](const AllToAllShape& shape) -> std::unique_ptr<TestGroup> {
         return std::make_unique<LoopbackTestGroup>(shape);
       }}};
}

namespace {

TEST(AllToAllShape, RefusalsNameTheNumber) {
  const AllToAllShape good{.ranks = 2,
                           .slots_per_rank = 4,
                           .slots_per_row = 2,
                           .row_bytes = 16,
                           .output_bytes = 8,
                           .rows_max = 4};
  EXPECT_TRUE(CheckAllToAllShape(good).ok());
  const struct {
    std::int32_t AllToAllShape::*number;
    const char* says;
  } cases[] = {{&AllToAllShape::ranks, "the number of ranks is 0, not 1 to 1024"},
               {&AllToAllShape::slots_per_rank, "expert slots of a rank is 0"},
               {&AllToAllShape::slots_per_row, "experts of a row is 0"},
               {&AllToAllShape::row_bytes, "a row is 0"},
               {&AllToAllShape::output_bytes, "an output is 0"},
               {&AllToAllShape::rows_max, "rows of a rank is 0"}};
  for (const auto& c : cases) {
    AllToAllShape bad = good;
    bad.*c.number = 0;
    EXPECT_THAT(CheckAllToAllShape(bad).ToString(), testing::HasSubstr(c.says));
  }
  AllToAllShape bad = good;
  bad.wait_max = absl::ZeroDuration();
  EXPECT_THAT(LoopbackGroup::Make(bad).status().ToString(), testing::HasSubstr("longest wait"));
}

TEST(DispatchPlan, SendsARowOnceToEachRank) {
  DispatchPlan plan({.ranks = 3,
                     .slots_per_rank = 2,
                     .slots_per_row = 3,
                     .row_bytes = 2,
                     .output_bytes = 2,
                     .rows_max = 2});
  const std::vector<std::int32_t> slots = {5, 0, 4, 1, 0, 5};
  ASSERT_TRUE(plan.Assign({.count = 2, .slots = slots.data()}).ok());
  EXPECT_THAT(plan.RowsTo(0), testing::ElementsAre(0, 1));
  EXPECT_THAT(plan.RowsTo(1), testing::ElementsAre());
  EXPECT_THAT(plan.RowsTo(2), testing::ElementsAre(0, 1));
  std::vector<std::vector<int>> entries;
  for (const PlannedEntry& entry : plan.EntriesTo(2)) {
    entries.push_back({entry.slot, entry.row, entry.output});
  }
  EXPECT_THAT(entries, testing::ElementsAre(std::vector{1, 0, 0}, std::vector{0, 0, 2},
                                            std::vector{1, 1, 5}));
  const std::vector<std::int32_t> wrong = {6, 0, 4};
  EXPECT_FALSE(plan.Assign({.count = 1, .slots = wrong.data()}).ok());
  EXPECT_TRUE(plan.EntriesTo(0).empty()) << "nothing is planned after a refusal";
}

}  // namespace
}  // namespace baleen::worker
