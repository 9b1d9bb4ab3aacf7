// A model over the ranks of a group, each on a thread of its own, joined by the loopback exchange.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/worker/model/sequence_run.h"
#include "worker/expert_parallel/loopback_all_to_all.h"
#include "worker/model/experts/expert_shard.h"

namespace baleen::worker {

// Any order of the experts, and any of them in the slots that are left.
inline LayerPlacement RandomPlacement(const PlacementShape& shape, std::mt19937_64& random) {
  std::vector<std::int32_t> expert_of_slot;
  for (std::int32_t slot = 0; slot < shape.slots(); ++slot) {
    expert_of_slot.push_back(
        slot < shape.experts ? slot : static_cast<std::int32_t>(random() % shape.experts));
  }
  std::ranges::shuffle(expert_of_slot, random);
  return LayerPlacement::Make(shape, std::move(expert_of_slot)).value();
}

inline ModelPlacement RandomModelPlacement(const ModelConfig& config, const PlacementShape& shape,
                                           std::uint64_t seed) {
  std::mt19937_64 random(seed);
  ModelPlacement placement{.shape = shape};
  for (std::int32_t layer = 0; layer < MoeLayersOf(config); ++layer) {
    placement.layers.push_back(RandomPlacement(shape, random));
  }
  return placement;
}

class ModelGroup {
 public:
  struct Options {
    std::string directory;
    StepLimits limits;
    DispatchFormat dispatch = DispatchFormat::kBf16;
    std::uint32_t blocks = 64;
  };

  ModelGroup(const Options& options, const ModelPlacement& placement)
      : ranks_(placement.shape.ranks) {
    const auto directory = ModelDirectory::Open({.directory = options.directory}).value();
    shape_ =
        ExchangeShapeOf(directory->config(), options.limits, placement.shape, options.dispatch);
    shape_.wait_max = absl::Seconds(60);
    models_.resize(ranks_);
    OnEachRank([&](std::int32_t rank) {
      models_[rank] =
          std::make_unique<LoadedModel>(ModelOptions{.directory = options.directory,
                                                     .limits = options.limits,
                                                     .dispatch = options.dispatch,
                                                     .shard = ExpertShard{rank, placement}},
                                        options.blocks);
    });
  }

  std::int32_t ranks() const { return ranks_; }
  const AllToAllShape& shape() const { return shape_; }
  LoadedModel& rank(std::int32_t rank) { return *models_[rank]; }
  DeepSeekModel& model(std::int32_t rank) { return models_[rank]->model(); }

  void OnEachRank(const std::function<void(std::int32_t rank)>& work) {
    std::vector<std::jthread> threads;
    for (std::int32_t rank = 0; rank < ranks_; ++rank) threads.emplace_back(work, rank);
  }

  // Every layer of `placement` takes effect.
  void Place(const ModelPlacement& placement) {
    OnEachRank([&](std::int32_t rank) {
      for (std::size_t layer = 0; layer < placement.layers.size(); ++layer) {
        const absl::Status prepared =
            model(rank).Prepare(static_cast<std::int32_t>(layer), placement.layers[layer]);
        ASSERT_TRUE(prepared.ok()) << prepared;
        model(rank).Adopt();
      }
    });
  }

  struct Run {
    int micro_batches = 1;
    std::size_t chunk = 16;    // of prompts
    std::size_t generate = 3;  // tokens of each sequence
    // Called by every rank's thread before its step `step`, counted from 0.
    std::function<void(std::int32_t rank, int step)> before_step = {};
  };

  // Sequence i runs on rank home[i]. What each leaves behind.
  std::vector<Outcome> Serve(std::vector<Sequence> sequences, const std::vector<std::int32_t>& home,
                             const Run& run) {
    const auto group = LoopbackGroup::Make(shape_).value();
    int steps = 0;
    for (const Sequence& sequence : sequences) {
      steps = std::max(steps, static_cast<int>(sequence.steps(run.chunk, run.generate)));
    }
    std::vector<Outcome> outcomes(sequences.size());
    OnEachRank([&](std::int32_t rank) {
      const auto endpoint = group->Join(rank);
      models_[rank]->ClearCache();
      for (int step = 0; step < steps; ++step) {
        if (run.before_step) run.before_step(rank, step);
        std::vector<std::size_t> mine;
        std::vector<SequenceStep> batch;
        for (std::size_t i = 0; i < sequences.size(); ++i) {
          if (home[i] != rank || sequences[i].generated() >= run.generate) continue;
          mine.push_back(i);
          batch.push_back(sequences[i].Next(run.chunk));
        }
        std::vector<SampledToken> sampled(batch.size());
        const absl::Status status = model(rank).Step(
            batch, models_[rank]->kv(),
            {.all_to_all = endpoint.get(), .micro_batches = run.micro_batches}, sampled);
        ASSERT_TRUE(status.ok()) << status;
        for (std::size_t i = 0; i < mine.size(); ++i) sequences[mine[i]].Take(sampled[i]);
      }
      for (std::size_t i = 0; i < sequences.size(); ++i) {
        if (home[i] == rank) outcomes[i] = sequences[i].End(*models_[rank]);
      }
    });
    return outcomes;
  }

 private:
  const std::int32_t ranks_;
  AllToAllShape shape_;
  std::vector<std::unique_ptr<LoadedModel>> models_;
};

}  // namespace baleen::worker
