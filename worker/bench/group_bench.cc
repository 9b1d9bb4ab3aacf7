// The nano model at batch 32: decode steps of one rank with all experts against groups of two and
// four over UCX, in one run. Each rank is a thread with endpoint, weights and sequences of its own.
//
// efficiency = time of one rank / (time of the group * cores that the group can use)
#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "observability/base/check.h"
#include "worker/device/reference_device.h"
#include "worker/expert_parallel/exchange_meter.h"
#include "worker/expert_parallel/ucx/ucx_endpoint.h"
#include "worker/model/deepseek_model.h"

namespace baleen::worker {
namespace {

constexpr std::uint32_t kBatch = 32;
constexpr std::uint32_t kPosition = 63;  // of the tokens that are decoded: one block of context
constexpr int kSteps = 60;
constexpr int kWarmupSteps = 6;

double SecondsOf(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct RankCost {
  double cpu_seconds = 0;
  double barrier_seconds = 0;   // waited at the step barrier
  double exchange_seconds = 0;  // waited in dispatch and combine
};

// One rank: its share of the batch, decoded again and again at one position.
class BenchRank {
 public:
  BenchRank(const std::string& directory, std::int32_t rank, std::int32_t ranks)
      : rank_(rank), ranks_(ranks), sequences_(kBatch / ranks), meter_(ranks) {
    ModelOptions options{.directory = directory,
                         .limits = {.tokens_max = sequences_, .sequences_max = sequences_}};
    auto opened = ModelDirectory::Open(options).value();
    const PlacementShape placement = PlacementShapeOf(opened->config(), ranks);
    shape_ = ExchangeShapeOf(opened->config(), options.limits, placement, opened->dispatch());
    if (ranks > 1) {
      options.shard = ExpertShard{
          .rank = rank, .placement = ContiguousModelPlacement(opened->config(), placement)};
      pending_ =
          PendingUcxEndpoint::Create({.shape = shape_, .rank = rank, .meter = &meter_}).value();
    }
    model_ = DeepSeekModel::Load(std::move(opened), options, *device_).value();
    kv_ = device_->Allocate(sequences_ * model_->info().kv_block_bytes).value();
    std::fill_n(kv_.data(), kv_.bytes(), std::byte{0});
    for (std::uint32_t i = 0; i < sequences_; ++i) {
      tokens_.push_back(static_cast<std::int32_t>((rank * sequences_ + i) * 13 % 500));
      blocks_.push_back(i);
    }
  }

  std::string address() const { return pending_ ? pending_->address() : ""; }
  void Connect(const std::vector<std::string>& addresses) {
    if (pending_ == nullptr) return;
    auto connected = pending_->Connect(1, addresses);
    BALEEN_CHECK(connected.ok(), "ranks of one process reach each other");
    endpoint_ = *std::move(connected);
  }

  void Step() {
    if (endpoint_ != nullptr) {
      const StepOpening opening{.epoch = 1, .step = ++step_, .rows = sequences_};
      BALEEN_CHECK(endpoint_->OpenStep(opening).ok(), "no rank goes");
    }
    const SampleSpec greedy;
    std::vector<SequenceStep> batch;
    for (std::uint32_t i = 0; i < sequences_; ++i) {
      batch.push_back({.tokens = std::span(tokens_).subspan(i, 1),
                       .position = kPosition,
                       .block_table = std::span(blocks_).subspan(i, 1),
                       .form = AttentionForm::kAbsorbed,
                       .sample = &greedy});
    }
    std::vector<SampledToken> sampled(sequences_);
    const absl::Status status = model_->Step(batch, {.base = kv_.data(), .blocks = sequences_},
                                             {.all_to_all = endpoint_.get()}, sampled);
    BALEEN_CHECK(status.ok(), "a step of the benchmark succeeds");
  }

  // Since the start.
  RankCost cost() const {
    RankCost cost{.cpu_seconds = SecondsOf(CLOCK_THREAD_CPUTIME_ID)};
    for (int phase = 0; phase < kExchangePhases; ++phase) {
      double longest = 0;
      for (std::int32_t peer = 0; peer < ranks_; ++peer) {
        longest =
            std::max(longest, meter_.Read(static_cast<ExchangePhase>(phase), peer).wait_seconds);
      }
      const bool barrier = static_cast<ExchangePhase>(phase) == ExchangePhase::kStepBarrier;
      (barrier ? cost.barrier_seconds : cost.exchange_seconds) += longest;
    }
    return cost;
  }

 private:
  const std::int32_t rank_;
  const std::int32_t ranks_;
  const std::uint32_t sequences_;
  ExchangeMeter meter_;
  AllToAllShape shape_;
  std::unique_ptr<Device> device_ = MakeReferenceDevice();
  std::unique_ptr<DeepSeekModel> model_;
  Buffer kv_;
  std::vector<std::int32_t> tokens_;
  std::vector<std::uint32_t> blocks_;
  std::unique_ptr<PendingUcxEndpoint> pending_;
  std::shared_ptr<GroupEndpoint> endpoint_;
  std::uint64_t step_ = 0;
};

struct GroupCost {
  double seconds = 0;  // of a step
  RankCost mean;       // of a rank, in a step
};

GroupCost Measure(const std::string& directory, std::int32_t ranks) {
  std::vector<std::string> addresses(ranks);
  std::vector<RankCost> costs(ranks);
  std::vector<double> seconds(ranks);
  std::barrier together(ranks);
  std::vector<std::jthread> threads;
  for (std::int32_t rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      BenchRank bench(directory, rank, ranks);
      addresses[rank] = bench.address();
      together.arrive_and_wait();
      bench.Connect(addresses);
      for (int i = 0; i < kWarmupSteps; ++i) bench.Step();
      together.arrive_and_wait();
      const RankCost before = bench.cost();
      const double start = SecondsOf(CLOCK_MONOTONIC);
      for (int i = 0; i < kSteps; ++i) bench.Step();
      seconds[rank] = SecondsOf(CLOCK_MONOTONIC) - start;
      const RankCost after = bench.cost();
      costs[rank] = {.cpu_seconds = after.cpu_seconds - before.cpu_seconds,
                     .barrier_seconds = after.barrier_seconds - before.barrier_seconds,
                     .exchange_seconds = after.exchange_seconds - before.exchange_seconds};
      together.arrive_and_wait();
    });
  }
  threads.clear();
  GroupCost group{.seconds = *std::ranges::max_element(seconds) / kSteps};
  for (const RankCost& cost : costs) {
    group.mean.cpu_seconds += cost.cpu_seconds / ranks / kSteps;
    group.mean.barrier_seconds += cost.barrier_seconds / ranks / kSteps;
    group.mean.exchange_seconds += cost.exchange_seconds / ranks / kSteps;
  }
  return group;
}

// Shares of the cores' time in a step of the group: what one rank needs for the whole batch, what
// the group needs beyond it, and what nobody uses.
void Print(std::int32_t ranks, const GroupCost& alone, const GroupCost& group, long cores) {
  const double usable = static_cast<double>(std::min<long>(ranks, cores));
  const double available = usable * group.seconds;
  const double used = ranks * group.mean.cpu_seconds;
  fmt::print(
      "{:>5} {:>9.2f} {:>8.2f} {:>10.0f} % {:>9.0f} % {:>9.0f} % {:>9.0f} % {:>11.2f} {:>11.2f}\n",
      ranks, 1e3 * group.seconds, alone.seconds / group.seconds, 100 * alone.seconds / available,
      100 * alone.mean.cpu_seconds / available, 100 * (used - alone.mean.cpu_seconds) / available,
      100 * (available - used) / available, 1e3 * group.mean.barrier_seconds,
      1e3 * group.mean.exchange_seconds);
  std::fflush(stdout);
}

void Run(const std::string& directory) {
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  fmt::print("{} at batch {}, decode steps, {} cores; ms of a step, share of the cores' time\n",
             directory, kBatch, cores);
  fmt::print("{:>5} {:>9} {:>8} {:>12} {:>11} {:>11} {:>11} {:>11} {:>11}\n", "ranks", "step",
             "speed-up", "efficiency", "work", "extra", "idle", "at barrier", "in exchange");
  const GroupCost alone = Measure(directory, 1);
  Print(1, alone, alone, cores);
  for (const std::int32_t ranks : {2, 4}) Print(ranks, alone, Measure(directory, ranks), cores);
}

}  // namespace
}  // namespace baleen::worker

int main(int argc, char** argv) {
  baleen::worker::Run(argc > 1 ? argv[1] : "models/nano");
  return 0;
}
