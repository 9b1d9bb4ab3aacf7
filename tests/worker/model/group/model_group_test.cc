// A model over several ranks: the same bits as on one, whatever the width, the placement of the
// experts, who has which sequences, and how the step is cut; errors end the step and nothing else.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/model/group/model_group.h"

namespace baleen::worker {
namespace {

using testing::HasSubstr;

constexpr char kNano[] = "models/nano";
constexpr char kSmall[] = "tests/golden/v2_grouped_fp8_tied";  // 8 experts, 3 of a token
constexpr StepLimits kLimits{.tokens_max = 128, .sequences_max = 8};

std::vector<Sequence> SomeSequences(std::uint32_t vocabulary) {
  const std::size_t lengths[] = {3, 17, 1, 30, 9, 20};
  std::vector<Sequence> sequences;
  for (std::uint32_t i = 0; i < std::size(lengths); ++i) {
    SampleSpec spec{.temperature = i % 2 == 0 ? 0.0f : 1.0f, .seed = i, .logprobs = 20};
    if (i == 3) spec = kAllRules;
    sequences.emplace_back(RandomTokens(lengths[i], vocabulary, 100 + i), Blocks(2 * i, 1), spec,
                           /*request=*/i * 77 + 1);
  }
  return sequences;
}

// Uneven; with many ranks some have none.
std::vector<std::int32_t> Homes(std::int32_t ranks) {
  std::vector<std::int32_t> homes;
  for (const std::int32_t home : {1, 6, 1, 3, 1, 0}) homes.push_back(home % ranks);
  return homes;
}

// What one rank without a group computes, each sequence on its own.
std::vector<Outcome> Alone(const std::string& directory, DispatchFormat dispatch) {
  LoadedModel model(ModelOptions{.directory = directory, .limits = kLimits, .dispatch = dispatch});
  std::vector<Outcome> outcomes;
  for (const Sequence& sequence : SomeSequences(model.model().info().vocabulary_size)) {
    outcomes.push_back(RunAlone(model, sequence, 64, 3));
  }
  return outcomes;
}

struct Family {
  std::string directory;
  std::vector<std::int32_t> redundant_experts;  // slots must divide over 8 ranks
  DispatchFormat dispatch = DispatchFormat::kBf16;
};

std::ostream& operator<<(std::ostream& out, const Family& family) {
  return out << family.directory << ' ' << NameOf(family.dispatch);
}

class EveryWidth : public testing::TestWithParam<Family> {};

INSTANTIATE_TEST_SUITE_P(
    Models, EveryWidth,
    testing::Values(Family{kNano, {0, 8}}, Family{kNano, {8}, DispatchFormat::kFp8},
                    Family{"tests/golden/v2_grouped_fp8_tied", {0, 8}},
                    Family{"tests/golden/v3_float32", {2, 10}, DispatchFormat::kFp8},
                    Family{"tests/golden/v3_q_lora", {2, 10}}),
    [](const auto& info) {
      return info.param.directory.substr(info.param.directory.rfind('/') + 1) + "_" +
             std::string(NameOf(info.param.dispatch));
    });

TEST_P(EveryWidth, GivesTheBitsOfOneRank) {
  const Family& family = GetParam();
#if defined(__SANITIZE_THREAD__)
  if (family.directory == kNano) GTEST_SKIP() << "small models have the same threads, in less time";
#endif
  const std::vector<Outcome> alone = Alone(family.directory, family.dispatch);
  const auto directory = ModelDirectory::Open({.directory = family.directory}).value();
  const std::vector<Sequence> sequences = SomeSequences(directory->info().vocabulary_size);
  for (const std::int32_t ranks : {1, 2, 4, 8}) {
    std::uint64_t seed = 0;
    for (const std::int32_t wanted : family.redundant_experts) {
      // No more than a copy of every expert on every rank.
      const auto experts = static_cast<std::int32_t>(directory->config().n_routed_experts);
      const std::int32_t redundant = std::min(wanted, experts * (ranks - 1));
      const PlacementShape shape = PlacementShapeOf(directory->config(), ranks, redundant);
      const auto placement = [&] {
        return RandomModelPlacement(directory->config(), shape, ++seed);
      };
      ModelGroup group({family.directory, kLimits, family.dispatch}, placement());
      for (const int micro_batches : {1, 2, 1}) {
        const ModelGroup::Run run{.micro_batches = micro_batches};
        EXPECT_EQ(group.Serve(sequences, Homes(ranks), run), alone)
            << ranks << " ranks, " << redundant << " redundant experts, placement " << seed << ", "
            << micro_batches << " micro-batches";
        if (seed < 5) group.Place(placement());
      }
    }
  }
}

TEST(ModelGroup, Fp8DispatchIsAnotherArithmetic) {
  const std::vector<Outcome> bf16 = Alone(kNano, DispatchFormat::kBf16);
  const std::vector<Outcome> fp8 = Alone(kNano, DispatchFormat::kFp8);
  for (std::size_t i = 0; i < bf16.size(); ++i) EXPECT_NE(bf16[i].top, fp8[i].top) << i;
  LoadedModel model(ModelOptions{.directory = kNano, .dispatch = DispatchFormat::kFp8});
  EXPECT_EQ(model.model().info().arithmetic, "baleen-bf16-1+fp8-dispatch");
}

// Prepare runs beside the steps; replicas come and go.
TEST(ModelGroup, APlacementThatChangesWhileItServesChangesNoBit) {
  const std::vector<Outcome> alone = Alone(kNano, DispatchFormat::kBf16);
  const auto directory = ModelDirectory::Open({.directory = kNano}).value();
  const PlacementShape shape = PlacementShapeOf(directory->config(), 4, 8);
  std::vector<ModelPlacement> placements;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    placements.push_back(RandomModelPlacement(directory->config(), shape, 50 + seed));
  }
  // All replicas of one expert, as many as there can be, and the others in one slot each.
  std::vector<std::int32_t> replicas(shape.slots(), 5);
  for (std::int32_t expert = 0; expert < shape.experts; ++expert) {
    replicas[(expert * 7) % shape.slots()] = expert;
  }
  placements[3].layers[0] = LayerPlacement::Make(shape, replicas).value();

  ModelGroup group({kNano, kLimits}, placements[0]);
  std::vector<std::jthread> preparing(4);
  std::atomic<int> adopted = 0;
  const auto before_step = [&](std::int32_t rank, int step) {
    const auto next = static_cast<std::size_t>(step + 1);
    if (preparing[rank].joinable()) {
      preparing[rank].join();
      group.model(rank).Adopt();
      ++adopted;
    }
    if (next >= placements.size()) return;
    preparing[rank] = std::jthread([&, rank, next] {
      const auto layer = static_cast<std::int32_t>(next % 3);
      const absl::Status prepared =
          group.model(rank).Prepare(layer, placements[next].layers[layer]);
      EXPECT_TRUE(prepared.ok()) << prepared;
    });
  };
  EXPECT_EQ(group.Serve(SomeSequences(512), Homes(4),
                        {.micro_batches = 2, .chunk = 9, .before_step = before_step}),
            alone);
  EXPECT_EQ(adopted, 4 * 5);
}

// An expert is asked for by the whole group at once: more rows than one rank's scratch holds.
TEST(ModelGroup, ExpertsTakeMoreRowsThanAStepHas) {
  const auto directory = ModelDirectory::Open({.directory = kSmall}).value();
  const std::vector<std::int32_t> prompt(4, 7);
  for (const DispatchFormat dispatch : {DispatchFormat::kBf16, DispatchFormat::kFp8}) {
    const StepLimits limits{.tokens_max = 4, .sequences_max = 1};
    LoadedModel model(ModelOptions{.directory = kSmall, .dispatch = dispatch});
    const Outcome expected = RunAlone(model, Sequence(prompt, Blocks(0, 1)), 4, 1);
    ModelGroup group(
        {kSmall, limits, dispatch},
        ContiguousModelPlacement(directory->config(), PlacementShapeOf(directory->config(), 8)));
    const std::vector<Outcome> outcomes =
        group.Serve(std::vector<Sequence>(8, Sequence(prompt, Blocks(0, 1))),
                    {0, 1, 2, 3, 4, 5, 6, 7}, {.chunk = 4, .generate = 1});
    EXPECT_EQ(outcomes, std::vector<Outcome>(8, expected));
  }
}

TEST(ModelGroup, CountsWhereTokensGo) {
  const auto directory = ModelDirectory::Open({.directory = kNano}).value();
  const std::vector<Sequence> sequences = SomeSequences(512);
  const auto counts = [&](std::int32_t ranks) {
    const PlacementShape shape = PlacementShapeOf(directory->config(), ranks);
    ModelGroup group({kNano, kLimits}, ContiguousModelPlacement(directory->config(), shape));
    group.Serve(sequences, Homes(ranks), {.generate = 1});
    std::vector<std::uint64_t> sums(3 * 16);
    for (std::int32_t rank = 0; rank < ranks; ++rank) {
      for (std::int32_t i = 0; i < 3 * 16; ++i) {
        sums[i] += group.model(rank).expert_load().At(i / 16, i % 16);
      }
    }
    return sums;
  };
  const std::vector<std::uint64_t> sums = counts(1);
  for (int layer = 0; layer < 3; ++layer) {
    std::uint64_t tokens = 0;
    for (int expert = 0; expert < 16; ++expert) tokens += sums[layer * 16 + expert];
    EXPECT_EQ(tokens, (3 + 17 + 1 + 30 + 9 + 20) * 4) << layer;
  }
  EXPECT_EQ(counts(4), sums);
}

class TwoRanks : public testing::Test {
 protected:
  // A step of one sequence on rank 0, or of none on others.
  absl::Status Step(std::int32_t rank, AllToAll* all_to_all, int micro_batches = 1) {
    const SequenceStep step{.tokens = prompt_, .block_table = table_, .sample = &kGreedy};
    std::vector<SampledToken> sampled(rank == 0 ? 1 : 0);
    return group_.model(rank).Step({&step, sampled.size()}, group_.rank(rank).kv(),
                                   {.all_to_all = all_to_all, .micro_batches = micro_batches},
                                   sampled);
  }

  const std::unique_ptr<ModelDirectory> directory_ =
      ModelDirectory::Open({.directory = kNano}).value();
  const PlacementShape shape_ = PlacementShapeOf(directory_->config(), 2);
  ModelGroup group_{{kNano, kLimits}, ContiguousModelPlacement(directory_->config(), shape_)};
  const std::vector<std::int32_t> prompt_ = {0, 5, 6};
  const std::vector<std::uint32_t> table_ = {0};
};

// Gives its endpoint up at one of its calls.
class Leaver final : public AllToAll {
 public:
  Leaver(std::unique_ptr<GroupEndpoint> endpoint, int calls)
      : endpoint_(std::move(endpoint)), calls_left_(calls) {}

  absl::Status StartDispatch(int lane, const DispatchRows& rows) override {
    return Stays() ? endpoint_->StartDispatch(lane, rows) : Left();
  }
  absl::StatusOr<ArrivedRows> FinishDispatch(int lane) override {
    if (!Stays()) return Left();
    return endpoint_->FinishDispatch(lane);
  }
  absl::Status StartCombine(int lane) override {
    return Stays() ? endpoint_->StartCombine(lane) : Left();
  }
  absl::StatusOr<const std::byte*> FinishCombine(int lane) override {
    if (!Stays()) return Left();
    return endpoint_->FinishCombine(lane);
  }

 private:
  bool Stays() {
    if (calls_left_-- > 0) return true;
    endpoint_ = nullptr;
    return false;
  }
  static absl::Status Left() { return absl::AbortedError("left"); }

  std::unique_ptr<GroupEndpoint> endpoint_;
  int calls_left_;
};

TEST_F(TwoRanks, APeerThatGoesEndsTheStepWithTheExchangesError) {
  // 3 MoE layers of 4 calls for each of two lanes; at the last FinishCombine nobody waits for it.
  for (int calls = 0; calls < 22; ++calls) {
    const auto group = LoopbackGroup::Make(group_.shape()).value();
    absl::Status statuses[2];
    group_.OnEachRank([&](std::int32_t rank) {
      std::unique_ptr<GroupEndpoint> endpoint = group->Join(rank);
      if (rank == 0) {
        statuses[0] = Step(0, endpoint.get(), 2);
      } else {
        Leaver leaver(std::move(endpoint), calls);
        statuses[1] = Step(1, &leaver, 2);
      }
    });
    EXPECT_EQ(statuses[0].code(), absl::StatusCode::kUnavailable) << calls << " " << statuses[0];
    EXPECT_THAT(statuses[0].ToString(), HasSubstr("rank 1 has gone")) << calls;
    EXPECT_EQ(statuses[1], absl::AbortedError("left")) << calls;
  }
  // The model is whole: the next epoch serves.
  const auto group = LoopbackGroup::Make(group_.shape()).value();
  group_.OnEachRank([&](std::int32_t rank) {
    const auto endpoint = group->Join(rank);
    EXPECT_TRUE(Step(rank, endpoint.get()).ok());
  });
}

// A peer that asks for the same expert again and again.
class Repeater final : public AllToAll {
 public:
  absl::Status StartDispatch(int, const DispatchRows&) override { return absl::OkStatus(); }
  absl::StatusOr<ArrivedRows> FinishDispatch(int) override {
    return ArrivedRows{.x = x_.data(), .entries = entries_, .outputs = outputs_.data()};
  }
  absl::Status StartCombine(int) override { return absl::OkStatus(); }
  absl::StatusOr<const std::byte*> FinishCombine(int) override { return outputs_.data(); }

 private:
  std::vector<std::byte> x_ = std::vector<std::byte>(512);
  std::vector<ArrivedEntry> entries_ = std::vector<ArrivedEntry>(2 * 128 * 4 + 1);
  std::vector<std::byte> outputs_ = std::vector<std::byte>(entries_.size() * 512);
};

// Nothing else bounds what one peer can ask of another: its lists are as long as honest ranks need.
TEST_F(TwoRanks, MoreRowsThanTheRanksMaySendAreRefused) {
  Repeater repeater;
  const absl::Status status = Step(1, &repeater);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.ToString(), HasSubstr("1025 rows have come"));
}

TEST_F(TwoRanks, AStepThatCannotBeIsRefusedBeforeTheExchange) {
  const auto group = LoopbackGroup::Make(group_.shape()).value();
  const auto endpoint = group->Join(0);  // alone: an exchange would wait for a minute
  const absl::Status alone = Step(0, nullptr);
  EXPECT_EQ(alone.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(alone.ToString(), HasSubstr("one of 2"));
  for (const int micro_batches : {0, 3}) {
    EXPECT_THAT(Step(0, endpoint.get(), micro_batches).ToString(), HasSubstr("not 1 to 2"));
  }
  const SequenceStep step{.block_table = table_};
  SampledToken sampled;
  EXPECT_THAT(
      group_.model(0)
          .Step({&step, 1}, group_.rank(0).kv(), {.all_to_all = endpoint.get()}, {&sampled, 1})
          .ToString(),
      HasSubstr("has no tokens"));
}

TEST_F(TwoRanks, PlacementsThatDoNotFitAreRefused) {
  DeepSeekModel& model = group_.model(0);
  const auto code = [&](std::int32_t layer, const PlacementShape& shape) {
    return model.Prepare(layer, ContiguousPlacement(shape)).code();
  };
  EXPECT_EQ(code(-1, shape_), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(3, shape_), absl::StatusCode::kInvalidArgument);
  PlacementShape other = shape_;
  other.redundant_experts = 8;
  EXPECT_EQ(code(0, other), absl::StatusCode::kInvalidArgument);
  other = shape_;
  other.experts = 8;
  other.redundant_experts = 8;  // as many slots, of fewer experts
  EXPECT_EQ(code(0, other), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(0, shape_), absl::StatusCode::kOk);
  EXPECT_EQ(code(1, shape_), absl::StatusCode::kFailedPrecondition) << "one at a time";
  model.Adopt();
  EXPECT_EQ(code(1, shape_), absl::StatusCode::kOk);
}

TEST_F(TwoRanks, ShardsThatDoNotFitAreRefused) {
  const auto refusal = [&](const ExpertShard& shard) {
    return CheckExpertShard(directory_->config(), shard).ToString();
  };
  ExpertShard shard{.placement = ContiguousModelPlacement(directory_->config(), shape_)};
  EXPECT_EQ(refusal(shard), "OK");
  shard.rank = 2;
  EXPECT_THAT(refusal(shard), HasSubstr("rank 2 of a group of 2"));
  shard.rank = 0;
  shard.placement.layers.pop_back();
  EXPECT_THAT(refusal(shard), HasSubstr("placement of 2 layers, the model has 3"));
  shard.placement.shape.experts = 8;
  EXPECT_THAT(refusal(shard), HasSubstr("placement of 8 experts, the model has 16"));
  const std::unique_ptr<Device> device = MakeReferenceDevice();
  EXPECT_EQ(DeepSeekModel::Load({.directory = kNano, .shard = shard}, *device).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(TwoRanks, TheExchangeHasTheShapeOfTheModel) {
  AllToAllShape shape =
      ExchangeShapeOf(directory_->config(), kLimits, shape_, DispatchFormat::kBf16);
  EXPECT_EQ(shape.ranks, 2);
  EXPECT_EQ(shape.slots_per_rank, 8);
  EXPECT_EQ(shape.slots_per_row, 4);
  EXPECT_EQ(shape.row_bytes, 512);
  EXPECT_EQ(shape.output_bytes, 512);
  EXPECT_EQ(shape.rows_max, 128);
  shape = ExchangeShapeOf(directory_->config(), kLimits, shape_, DispatchFormat::kFp8);
  EXPECT_EQ(shape.row_bytes, 256 + 16) << "codes, two scales, padding";
  EXPECT_EQ(shape.output_bytes, 512);
  ModelConfig config = directory_->config();
  config.hidden_size = 130;
  EXPECT_EQ(DispatchRowLayoutOf(config, DispatchFormat::kFp8).scales_begin, 132);
  EXPECT_EQ(DispatchRowLayoutOf(config, DispatchFormat::kFp8).row_bytes, 144);
}

}  // namespace
}  // namespace baleen::worker
