#include "tests/worker/expert_parallel/all_to_all_conformance.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <barrier>
#include <numeric>
#include <random>
#include <thread>

namespace baleen::worker {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

// What expert slot `slot` makes of the value x: any function that tells slots and values apart.
std::uint16_t ExpertOf(std::int32_t slot, std::uint16_t x) {
  return static_cast<std::uint16_t>((x ^ (slot * 40503u + 77u)) * 2654435761u >> 8);
}

// The rows that one rank brings to one layer, and what must come back.
struct Tokens {
  Tokens(const AllToAllShape& shape, std::int64_t count, std::mt19937& random)
      : x(count * shape.columns), slots(count * shape.slots_per_row) {
    for (std::uint16_t& value : x) value = static_cast<std::uint16_t>(random());
    std::vector<std::int32_t> all(shape.ranks * shape.slots_per_rank);
    std::iota(all.begin(), all.end(), 0);
    for (std::int64_t row = 0; row < count; ++row) {
      std::ranges::shuffle(all, random);
      std::copy_n(all.begin(), shape.slots_per_row, slots.begin() + row * shape.slots_per_row);
    }
    rows = {.count = count, .x = x.data(), .slots = slots.data()};
    for (std::int64_t i = 0; i < count * shape.slots_per_row; ++i) {
      for (std::int32_t column = 0; column < shape.columns; ++column) {
        wanted.push_back(ExpertOf(slots[i], x[i / shape.slots_per_row * shape.columns + column]));
      }
    }
    got.assign(wanted.size(), 0);
  }

  std::vector<std::uint16_t> x;
  std::vector<std::int32_t> slots;
  DispatchRows rows;
  std::vector<std::uint16_t> wanted;  // [count][slots_per_row][columns]
  std::vector<std::uint16_t> got;
};

// The outputs of a rank's expert slots for what has arrived.
std::vector<std::uint16_t> Compute(const AllToAllShape& shape, std::int32_t rank,
                                   const ArrivedRows& arrived) {
  std::vector<std::uint16_t> y;
  for (const ArrivedEntry& entry : arrived.entries) {
    EXPECT_TRUE(entry.slot >= 0 && entry.slot < shape.slots_per_rank);
    EXPECT_TRUE(entry.row >= 0 && entry.row < arrived.rows);
    for (std::int32_t column = 0; column < shape.columns; ++column) {
      y.push_back(ExpertOf(rank * shape.slots_per_rank + entry.slot,
                           arrived.x[std::int64_t{entry.row} * shape.columns + column]));
    }
  }
  return y;
}

class AllToAllConformance : public testing::TestWithParam<GroupMaker> {
 protected:
  static AllToAllShape Shape(std::int32_t ranks) {
    return {.ranks = ranks,
            .slots_per_rank = 12 / ranks + 1,
            .slots_per_row = 3,
            .columns = 24,
            .rows_max = 17,
            .wait_max = absl::Seconds(30)};
  }

  // Runs body(rank, endpoint) for all ranks, each in a thread of its own that owns its endpoint.
  template <typename Body>
  void Run(const AllToAllShape& shape, Body body) {
    const std::unique_ptr<TestGroup> group = GetParam().make(shape);
    std::vector<std::jthread> threads;
    for (std::int32_t rank = 0; rank < shape.ranks; ++rank) {
      threads.emplace_back([&, rank] { body(rank, group->Join(rank)); });
    }
  }

  // Dispatch, experts and combine of one layer in lane 0; the first error.
  static absl::Status RunLayer(const AllToAllShape& shape, std::int32_t rank, AllToAll& all_to_all,
                               Tokens& tokens) {
    if (absl::Status status = all_to_all.StartDispatch(0, tokens.rows); !status.ok()) return status;
    const absl::StatusOr<ArrivedRows> arrived = all_to_all.FinishDispatch(0);
    if (!arrived.ok()) return arrived.status();
    const std::vector<std::uint16_t> y = Compute(shape, rank, *arrived);
    if (absl::Status status = all_to_all.StartCombine(0, y.data()); !status.ok()) return status;
    return all_to_all.FinishCombine(0, tokens.got.data());
  }

  static std::int64_t RowsOf(const AllToAllShape& shape, std::mt19937& random) {
    constexpr std::int64_t kOften[] = {0, 1};
    const std::size_t choice = random() % 3;
    return choice < 2 ? kOften[choice] : static_cast<std::int64_t>(random() % shape.rows_max) + 1;
  }
};

TEST_P(AllToAllConformance, EveryOutputComesHome) {
  for (const std::int32_t ranks : {1, 2, 4, 8}) {
    const AllToAllShape shape = Shape(ranks);
    Run(shape, [&](std::int32_t rank, std::unique_ptr<AllToAll> endpoint) {
      std::mt19937 random(rank);
      for (std::uint64_t step = 0; step < 10; ++step) {
        ASSERT_TRUE(endpoint->OpenStep({.epoch = 1, .step = step}).ok());
        for (int layer = 0; layer < 3; ++layer) {
          Tokens tokens(shape, RowsOf(shape, random), random);
          const absl::Status status = RunLayer(shape, rank, *endpoint, tokens);
          ASSERT_TRUE(status.ok()) << status;
          ASSERT_EQ(tokens.got, tokens.wanted) << "rank " << rank << " step " << step;
        }
      }
    });
  }
}

TEST_P(AllToAllConformance, TwoLanesAtATime) {
  const AllToAllShape shape = Shape(4);
  Run(shape, [&](std::int32_t rank, std::unique_ptr<AllToAll> endpoint) {
    std::mt19937 random(100 + rank);
    for (std::uint64_t step = 0; step < 20; ++step) {
      ASSERT_TRUE(endpoint->OpenStep({.epoch = 1, .step = step}).ok());
      std::vector<Tokens> tokens;
      std::vector<std::vector<std::uint16_t>> y(kLanes);
      for (int lane = 0; lane < kLanes; ++lane) {
        tokens.emplace_back(shape, RowsOf(shape, random), random);
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        ASSERT_TRUE(endpoint->StartDispatch(lane, tokens[lane].rows).ok());
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        const auto arrived = endpoint->FinishDispatch(lane);
        ASSERT_TRUE(arrived.ok()) << arrived.status();
        y[lane] = Compute(shape, rank, *arrived);
        ASSERT_TRUE(endpoint->StartCombine(lane, y[lane].data()).ok());
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        ASSERT_TRUE(endpoint->FinishCombine(lane, tokens[lane].got.data()).ok());
        ASSERT_EQ(tokens[lane].got, tokens[lane].wanted);
      }
    }
  });
}

// All tokens of all ranks for the experts of one: what buffers must hold.
TEST_P(AllToAllConformance, EverythingToOneRank) {
  const AllToAllShape shape = Shape(4);
  Run(shape, [&](std::int32_t rank, std::unique_ptr<AllToAll> endpoint) {
    std::mt19937 random(200 + rank);
    Tokens tokens(shape, shape.rows_max, random);
    std::vector<std::uint16_t> wanted;
    for (std::size_t i = 0; i < tokens.slots.size(); ++i) {
      tokens.slots[i] = static_cast<std::int32_t>(i) % shape.slots_per_row;  // of rank 0
      for (std::int32_t column = 0; column < shape.columns; ++column) {
        wanted.push_back(
            ExpertOf(tokens.slots[i], tokens.x[i / shape.slots_per_row * shape.columns + column]));
      }
    }
    ASSERT_TRUE(RunLayer(shape, rank, *endpoint, tokens).ok());
    EXPECT_EQ(tokens.got, wanted);
  });
}

// The order of what arrives is part of the contract: the same rows in the same order, in every run.
TEST_P(AllToAllConformance, ArrivalsAreInTheOrderOfRankRowAndPlace) {
  const AllToAllShape shape{
      .ranks = 2, .slots_per_rank = 2, .slots_per_row = 2, .columns = 1, .rows_max = 4};
  Run(shape, [&](std::int32_t rank, std::unique_ptr<AllToAll> endpoint) {
    const std::vector<std::uint16_t> x = {static_cast<std::uint16_t>(10 * rank + 1),
                                          static_cast<std::uint16_t>(10 * rank + 2)};
    const std::vector<std::int32_t> slots = {3, 0, 1, 0};  // row 0 to both ranks, row 1 to rank 0
    ASSERT_TRUE(
        endpoint->StartDispatch(0, {.count = 2, .x = x.data(), .slots = slots.data()}).ok());
    const auto arrived = endpoint->FinishDispatch(0);
    ASSERT_TRUE(arrived.ok());
    std::vector<std::vector<int>> seen;
    for (const ArrivedEntry& entry : arrived->entries) {
      seen.push_back({entry.slot, arrived->x[entry.row]});
    }
    if (rank == 0) {
      EXPECT_EQ(arrived->rows, 4);
      EXPECT_THAT(seen,
                  testing::ElementsAre(std::vector{0, 1}, std::vector{1, 2}, std::vector{0, 2},
                                       std::vector{0, 11}, std::vector{1, 12}, std::vector{0, 12}));
    } else {
      EXPECT_EQ(arrived->rows, 2);
      EXPECT_THAT(seen, testing::ElementsAre(std::vector{1, 1}, std::vector{1, 11}));
    }
    const std::vector<std::uint16_t> y = Compute(shape, rank, *arrived);
    ASSERT_TRUE(endpoint->StartCombine(0, y.data()).ok());
    std::vector<std::uint16_t> got(4);
    ASSERT_TRUE(endpoint->FinishCombine(0, got.data()).ok());
  });
}

TEST_P(AllToAllConformance, AStepOpensWithWhatAllSay) {
  const AllToAllShape shape = Shape(4);
  Run(shape, [&](std::int32_t rank, std::unique_ptr<AllToAll> endpoint) {
    for (std::uint64_t step = 5; step < 50; ++step) {
      const auto said = [&](std::int32_t who) {
        return StepOpening{.epoch = 3,
                           .step = step,
                           .rows = static_cast<std::uint32_t>(who * 100 + step),
                           .leaves = who == 2 && step == 49};
      };
      const auto all = endpoint->OpenStep(said(rank));
      ASSERT_TRUE(all.ok()) << all.status();
      ASSERT_EQ(all->size(), 4u);
      for (std::int32_t peer = 0; peer < 4; ++peer) EXPECT_EQ((*all)[peer], said(peer));
    }
  });
}

TEST_P(AllToAllConformance, AnotherEpochOrStepIsNamed) {
  const AllToAllShape shape = Shape(2);
  Run(shape, [&](std::int32_t rank, std::unique_ptr<AllToAll> endpoint) {
    const auto all = endpoint->OpenStep({.epoch = static_cast<std::uint64_t>(7 + rank), .step = 1});
    EXPECT_EQ(all.status().code(), absl::StatusCode::kFailedPrecondition);
    if (rank == 0) {
      EXPECT_THAT(std::string(all.status().message()),
                  HasSubstr("rank 1 is in epoch 8 step 1, this rank 0 in epoch 7 step 1"));
    }
    EXPECT_EQ(endpoint->OpenStep({.epoch = 7, .step = 1}).status(), all.status()) << "broken";
  });
}

TEST_P(AllToAllConformance, RefusesWhatIsOutOfRangeAndSendsNothing) {
  const AllToAllShape shape = Shape(2);
  const std::int32_t slots_end = shape.ranks * shape.slots_per_rank;
  Run(shape, [&](std::int32_t rank, std::unique_ptr<AllToAll> endpoint) {
    std::mt19937 random(300 + rank);
    Tokens tokens(shape, 2, random);
    if (rank == 0) {
      DispatchRows many = tokens.rows;
      many.count = shape.rows_max + 1;
      EXPECT_THAT(endpoint->StartDispatch(0, many).ToString(),
                  HasSubstr("the number of rows is 18, not 0 to 17"));
      for (const std::int32_t wrong : {-1, slots_end}) {
        std::vector<std::int32_t> slots = tokens.slots;
        slots.back() = wrong;
        EXPECT_EQ(
            endpoint->StartDispatch(0, {.count = 2, .x = tokens.x.data(), .slots = slots.data()})
                .code(),
            absl::StatusCode::kInvalidArgument);
      }
    }
    ASSERT_TRUE(RunLayer(shape, rank, *endpoint, tokens).ok()) << "the endpoint still works";
    EXPECT_EQ(tokens.got, tokens.wanted);
  });
}

// Rank 1 of 3 goes after some of the calls of a step. The others end with an error, and free what
// they had on the table while another one may still wait; rank 0 hears of rank 1 itself, rank 2
// perhaps of rank 0, which has given up before it.
TEST_P(AllToAllConformance, APeerThatGoesIsNamedWithThePhase) {
  for (int calls = 0; calls < 4; ++calls) {
    const AllToAllShape shape = Shape(3);
    Run(shape, [&](std::int32_t rank, std::unique_ptr<AllToAll> endpoint) {
      std::mt19937 random(400 + rank);
      Tokens tokens(shape, 3, random);
      const StepOpening opening{.epoch = 1, .step = 1};
      if (rank == 1) {
        if (calls > 0) {
          EXPECT_TRUE(endpoint->OpenStep(opening).ok());
        }
        if (calls > 1) {
          EXPECT_TRUE(endpoint->StartDispatch(0, tokens.rows).ok());
        }
        if (calls > 2) {
          EXPECT_TRUE(endpoint->FinishDispatch(0).ok());
        }
        endpoint.reset();
        return;
      }
      absl::Status status = endpoint->OpenStep(opening).status();
      if (status.ok()) status = RunLayer(shape, rank, *endpoint, tokens);
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      const std::string phase = calls == 0 ? "step barrier" : "(dispatch|combine)";
      EXPECT_THAT(std::string(status.message()),
                  ContainsRegex((rank == 0 ? "rank 1" : "rank [01]") +
                                std::string(" has gone, in the ") + phase));
      EXPECT_EQ(endpoint->OpenStep(opening).status(), status) << "broken";
    });
  }
}

TEST_P(AllToAllConformance, APeerThatStandsStillIsNamedWithThePhase) {
  AllToAllShape shape = Shape(2);
  shape.wait_max = absl::Milliseconds(20);
  std::barrier over(2);
  Run(shape, [&](std::int32_t rank, std::unique_ptr<AllToAll> endpoint) {
    std::mt19937 random(500 + rank);
    Tokens tokens(shape, 3, random);
    if (rank == 0) {
      const absl::Status status = endpoint->OpenStep({.epoch = 1, .step = 1}).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr("waited 20ms for rank 1 in the step barrier"));
    }
    over.arrive_and_wait();
  });
}

INSTANTIATE_TEST_SUITE_P(Over, AllToAllConformance, testing::ValuesIn(Groups()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace baleen::worker
