#include "tests/worker/expert_parallel/all_to_all_conformance.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <barrier>
#include <cstring>
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

using Value = std::uint16_t;

// Values of a row and of an output.
std::int64_t InputsOf(const AllToAllShape& shape) { return shape.row_bytes / sizeof(Value); }
std::int64_t OutputsOf(const AllToAllShape& shape) { return shape.output_bytes / sizeof(Value); }

// The rows that one rank brings to one layer, and what must come back.
struct Tokens {
  Tokens(const AllToAllShape& shape, std::int64_t count, std::mt19937& random)
      : x(count * InputsOf(shape)), slots(count * shape.slots_per_row) {
    for (std::uint16_t& value : x) value = static_cast<std::uint16_t>(random());
    std::vector<std::int32_t> all(shape.ranks * shape.slots_per_rank);
    std::iota(all.begin(), all.end(), 0);
    for (std::int64_t row = 0; row < count; ++row) {
      std::ranges::shuffle(all, random);
      std::copy_n(all.begin(), shape.slots_per_row, slots.begin() + row * shape.slots_per_row);
    }
    Want(shape);
  }

  DispatchRows rows() const {
    return {.count = static_cast<std::int64_t>(slots.size()) / slots_per_row,
            .x = reinterpret_cast<const std::byte*>(x.data()),
            .slots = slots.data()};
  }

  // Makes `wanted` from x and slots.
  void Want(const AllToAllShape& shape) {
    slots_per_row = shape.slots_per_row;
    wanted.clear();
    for (std::size_t i = 0; i < slots.size(); ++i) {
      for (std::int64_t column = 0; column < OutputsOf(shape); ++column) {
        wanted.push_back(ExpertOf(slots[i], x[i / shape.slots_per_row * InputsOf(shape) + column]));
      }
    }
  }

  void Take(const std::byte* outputs) {
    got.resize(wanted.size());
    if (got.empty()) return;  // memcpy takes no null
    std::memcpy(got.data(), outputs, got.size() * sizeof(Value));
  }

  std::vector<Value> x;
  std::vector<std::int32_t> slots;
  std::int32_t slots_per_row = 0;
  std::vector<Value> wanted;  // [count][slots_per_row][outputs]
  std::vector<Value> got;
};

// Computes the expert slots of a rank for what has arrived.
void Compute(const AllToAllShape& shape, std::int32_t rank, const ArrivedRows& arrived) {
  std::int32_t row_before = 0;
  for (std::size_t i = 0; i < arrived.entries.size(); ++i) {
    const ArrivedEntry& entry = arrived.entries[i];
    EXPECT_TRUE(entry.slot >= 0 && entry.slot < shape.slots_per_rank);
    EXPECT_GE(entry.row, row_before);
    row_before = entry.row;
    for (std::int64_t column = 0; column < OutputsOf(shape); ++column) {
      Value x = 0;
      std::memcpy(&x, arrived.x + std::int64_t{entry.row} * shape.row_bytes + column * sizeof(x),
                  sizeof(x));
      const Value y = ExpertOf(rank * shape.slots_per_rank + entry.slot, x);
      std::memcpy(arrived.outputs + i * shape.output_bytes + column * sizeof(y), &y, sizeof(y));
    }
  }
}

MATCHER(IsOkAndFalse, "is OK and false") { return arg.ok() && !*arg; }

class AllToAllConformance : public testing::TestWithParam<GroupMaker> {
 protected:
  static AllToAllShape Shape(std::int32_t ranks) {
    return {.ranks = ranks,
            .slots_per_rank = 12 / ranks + 1,
            .slots_per_row = 3,
            .row_bytes = 48,
            .output_bytes = 40,
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
  static absl::Status RunLayer(const AllToAllShape& shape, std::int32_t rank,
                               GroupEndpoint& all_to_all, Tokens& tokens) {
    if (absl::Status status = all_to_all.StartDispatch(0, tokens.rows()); !status.ok())
      return status;
    const absl::StatusOr<ArrivedRows> arrived = all_to_all.FinishDispatch(0);
    if (!arrived.ok()) return arrived.status();
    Compute(shape, rank, *arrived);
    if (absl::Status status = all_to_all.StartCombine(0); !status.ok()) return status;
    const absl::StatusOr<const std::byte*> outputs = all_to_all.FinishCombine(0);
    if (outputs.ok()) tokens.Take(*outputs);
    return outputs.status();
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
    Run(shape, [&](std::int32_t rank, std::unique_ptr<GroupEndpoint> endpoint) {
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
  Run(shape, [&](std::int32_t rank, std::unique_ptr<GroupEndpoint> endpoint) {
    std::mt19937 random(100 + rank);
    for (std::uint64_t step = 0; step < 20; ++step) {
      ASSERT_TRUE(endpoint->OpenStep({.epoch = 1, .step = step}).ok());
      std::vector<Tokens> tokens;
      for (int lane = 0; lane < kLanes; ++lane) {
        tokens.emplace_back(shape, RowsOf(shape, random), random);
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        ASSERT_TRUE(endpoint->StartDispatch(lane, tokens[lane].rows()).ok());
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        const auto arrived = endpoint->FinishDispatch(lane);
        ASSERT_TRUE(arrived.ok()) << arrived.status();
        Compute(shape, rank, *arrived);
        ASSERT_TRUE(endpoint->StartCombine(lane).ok());
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        const auto outputs = endpoint->FinishCombine(lane);
        ASSERT_TRUE(outputs.ok()) << outputs.status();
        tokens[lane].Take(*outputs);
        ASSERT_EQ(tokens[lane].got, tokens[lane].wanted);
      }
    }
  });
}

// All tokens of all ranks for the experts of one: what buffers must hold.
TEST_P(AllToAllConformance, EverythingToOneRank) {
  const AllToAllShape shape = Shape(4);
  Run(shape, [&](std::int32_t rank, std::unique_ptr<GroupEndpoint> endpoint) {
    std::mt19937 random(200 + rank);
    Tokens tokens(shape, shape.rows_max, random);
    for (std::size_t i = 0; i < tokens.slots.size(); ++i) {
      tokens.slots[i] = static_cast<std::int32_t>(i) % shape.slots_per_row;  // of rank 0
    }
    tokens.Want(shape);
    ASSERT_TRUE(RunLayer(shape, rank, *endpoint, tokens).ok());
    EXPECT_EQ(tokens.got, tokens.wanted);
  });
}

// The order of what arrives is part of the contract: the same rows in the same order, in every run.
TEST_P(AllToAllConformance, ArrivalsAreInTheOrderOfRankRowAndPlace) {
  const AllToAllShape shape{.ranks = 2,
                            .slots_per_rank = 2,
                            .slots_per_row = 2,
                            .row_bytes = sizeof(Value),
                            .output_bytes = sizeof(Value),
                            .rows_max = 4};
  Run(shape, [&](std::int32_t rank, std::unique_ptr<GroupEndpoint> endpoint) {
    std::mt19937 random(1);
    Tokens tokens(shape, 2, random);
    tokens.x = {static_cast<Value>(10 * rank + 1), static_cast<Value>(10 * rank + 2)};
    tokens.slots = {3, 0, 1, 0};  // row 0 to both ranks, row 1 to rank 0
    ASSERT_TRUE(endpoint->StartDispatch(0, tokens.rows()).ok());
    const auto arrived = endpoint->FinishDispatch(0);
    ASSERT_TRUE(arrived.ok());
    std::vector<std::vector<int>> seen;
    for (const ArrivedEntry& entry : arrived->entries) {
      Value x = 0;
      std::memcpy(&x, arrived->x + entry.row * sizeof(x), sizeof(x));
      seen.push_back({entry.slot, x});
    }
    if (rank == 0) {
      EXPECT_THAT(seen,
                  testing::ElementsAre(std::vector{0, 1}, std::vector{1, 2}, std::vector{0, 2},
                                       std::vector{0, 11}, std::vector{1, 12}, std::vector{0, 12}));
    } else {
      EXPECT_THAT(seen, testing::ElementsAre(std::vector{1, 1}, std::vector{1, 11}));
    }
    Compute(shape, rank, *arrived);
    ASSERT_TRUE(endpoint->StartCombine(0).ok());
    EXPECT_TRUE(endpoint->FinishCombine(0).ok());
  });
}

TEST_P(AllToAllConformance, AStepOpensWithWhatAllSay) {
  const AllToAllShape shape = Shape(4);
  Run(shape, [&](std::int32_t rank, std::unique_ptr<GroupEndpoint> endpoint) {
    for (std::uint64_t step = 5; step < 50; ++step) {
      const auto said = [&](std::int32_t who) {
        return StepOpening{.epoch = 3,
                           .step = step,
                           .rows = static_cast<std::uint32_t>(who * 100 + step),
                           .prepared = static_cast<std::uint32_t>(who),
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
  Run(shape, [&](std::int32_t rank, std::unique_ptr<GroupEndpoint> endpoint) {
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
  Run(shape, [&](std::int32_t rank, std::unique_ptr<GroupEndpoint> endpoint) {
    std::mt19937 random(300 + rank);
    Tokens tokens(shape, 2, random);
    if (rank == 0) {
      DispatchRows many = tokens.rows();
      many.count = shape.rows_max + 1;
      EXPECT_THAT(endpoint->StartDispatch(0, many).ToString(),
                  HasSubstr("the number of rows is 18, not 0 to 17"));
      for (const std::int32_t wrong : {-1, slots_end}) {
        std::vector<std::int32_t> slots = tokens.slots;
        slots.back() = wrong;
        EXPECT_EQ(
            endpoint->StartDispatch(0, {.count = 2, .x = tokens.rows().x, .slots = slots.data()})
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
    Run(shape, [&](std::int32_t rank, std::unique_ptr<GroupEndpoint> endpoint) {
      std::mt19937 random(400 + rank);
      Tokens tokens(shape, 3, random);
      const StepOpening opening{.epoch = 1, .step = 1};
      if (rank == 1) {
        if (calls > 0) {
          EXPECT_TRUE(endpoint->OpenStep(opening).ok());
        }
        if (calls > 1) {
          EXPECT_TRUE(endpoint->StartDispatch(0, tokens.rows()).ok());
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
                                std::string(" has gone, in the .*") + phase));
      EXPECT_EQ(endpoint->OpenStep(opening).status(), status) << "broken";
    });
  }
}

TEST_P(AllToAllConformance, APeerThatStandsStillIsNamedWithThePhase) {
  AllToAllShape shape = Shape(2);
  shape.wait_max = absl::Milliseconds(20);
  std::barrier over(2);
  Run(shape, [&](std::int32_t rank, std::unique_ptr<GroupEndpoint> endpoint) {
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

// Rank 0 sleeps; rank 1 opens a step, which wakes it.
TEST_P(AllToAllConformance, ASleepingRankWakesWhenAPeerOpensAStep) {
  const AllToAllShape shape = Shape(2);
  Run(shape, [&](std::int32_t rank, std::unique_ptr<GroupEndpoint> endpoint) {
    for (std::uint64_t step = 1; step <= 20; ++step) {
      if (rank == 0) {
        const absl::StatusOr<bool> wanted = endpoint->AwaitPeers(absl::Seconds(30));
        ASSERT_TRUE(wanted.ok()) << wanted.status();
        ASSERT_TRUE(*wanted);
      }
      const auto all = endpoint->OpenStep({.epoch = 1, .step = step});
      ASSERT_TRUE(all.ok()) << all.status();
    }
  });
}

TEST_P(AllToAllConformance, AnInterruptEndsTheSleepNowOrNext) {
  const AllToAllShape shape = Shape(2);
  std::barrier over(2);
  Run(shape, [&](std::int32_t rank, std::unique_ptr<GroupEndpoint> endpoint) {
    if (rank == 0) {
      endpoint->Interrupt();
      EXPECT_THAT(endpoint->AwaitPeers(absl::Seconds(30)), IsOkAndFalse()) << "before the sleep";
      std::jthread other([&] { endpoint->Interrupt(); });
      EXPECT_THAT(endpoint->AwaitPeers(absl::Seconds(30)), IsOkAndFalse()) << "about then";
      EXPECT_THAT(endpoint->AwaitPeers(absl::Milliseconds(1)), IsOkAndFalse()) << "the limit";
    }
    over.arrive_and_wait();
  });
}

// What is heard outside of the data plane ends a wait at once.
TEST_P(AllToAllConformance, AnAbortEndsEveryWait) {
  const AllToAllShape shape = Shape(2);
  std::barrier over(2);
  for (const bool sleeping : {true, false}) {
    Run(shape, [&](std::int32_t rank, std::unique_ptr<GroupEndpoint> endpoint) {
      if (rank == 0) {
        const absl::Status why = absl::UnavailableError("rank 1 has left the group");
        std::jthread other([&] { endpoint->Abort(why); });
        if (sleeping) {
          EXPECT_EQ(endpoint->AwaitPeers(absl::Seconds(30)).status(), why);
        } else {
          EXPECT_EQ(endpoint->OpenStep({.epoch = 1, .step = 1}).status(), why);
        }
        EXPECT_EQ(endpoint->OpenStep({.epoch = 1, .step = 1}).status(), why) << "broken";
      }
      over.arrive_and_wait();
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Over, AllToAllConformance, testing::ValuesIn(Groups()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace baleen::worker
