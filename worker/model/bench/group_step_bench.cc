// Steps of the quick-start model over a group whose ranks are threads: against one rank with the
// same batch, and with two micro-batches against one. Run from the repository root.
#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "worker/device/reference_device.h"
#include "worker/expert_parallel/loopback_all_to_all.h"
#include "worker/expert_parallel/ucx/ucx_endpoint.h"
#include "worker/model/deepseek_model.h"

namespace baleen::worker {
namespace {

constexpr char kModel[] = "models/nano";
constexpr std::uint32_t kDecodePosition = 100;
constexpr std::uint32_t kBlocksOfSequence = 2;
constexpr int kStepsMin = 8;
constexpr int kStepsMax = 60;
constexpr double kSecondsOfCase = 1.5;

// kDelayed: the loopback over a network that needs kDelay for each half of an exchange, and no
// core.
enum class Transport { kNone, kLoopback, kDelayed, kUcx };
constexpr auto kDelay = std::chrono::milliseconds(1);

const char* NameOf(Transport transport) {
  switch (transport) {
    case Transport::kNone:
      return "none";
    case Transport::kLoopback:
      return "loopback";
    case Transport::kDelayed:
      return "1 ms away";
    case Transport::kUcx:
      return "UCX";
  }
  return "";
}

struct Case {
  Transport transport = Transport::kNone;
  std::int32_t ranks = 1;
  std::uint32_t sequences = 1;  // of a rank
  std::uint32_t tokens = 1;     // of a sequence; one is a decode step, more are a prompt
};

// One rank: its model, KV cache and batch.
class Rank {
 public:
  Rank(const Case& c, const ExpertShard& shard)
      : limits_{.tokens_max = c.sequences * c.tokens, .sequences_max = c.sequences},
        device_(MakeReferenceDevice()) {
    model_ = DeepSeekModel::Load({.directory = kModel, .limits = limits_, .shard = shard}, *device_)
                 .value();
    const std::uint32_t blocks_each = std::max(kBlocksOfSequence, (c.tokens + 63) / 64);
    blocks_ = c.sequences * blocks_each;
    cache_ = device_->Allocate(blocks_ * model_->info().kv_block_bytes).value();
    for (std::uint32_t i = 0; i < c.sequences; ++i) {
      std::vector<std::uint32_t> table(blocks_each);
      for (std::uint32_t j = 0; j < blocks_each; ++j) table[j] = i * blocks_each + j;
      tables_.push_back(std::move(table));
      std::vector<std::int32_t> tokens(c.tokens);
      for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(next_++ * 37 % 500);
      tokens_.push_back(std::move(tokens));
    }
    for (std::uint32_t i = 0; i < c.sequences; ++i) {
      const bool decode = c.tokens == 1;
      steps_.push_back({.tokens = tokens_[i],
                        .position = decode ? kDecodePosition : 0,
                        .block_table = tables_[i],
                        .form = decode ? AttentionForm::kAbsorbed : AttentionForm::kPrefill,
                        .sample = &greedy_,
                        .request = i});
    }
  }

  void Step(AllToAll* all_to_all, int micro_batches) {
    std::vector<SampledToken> sampled(steps_.size());
    const absl::Status status =
        model_->Step(steps_, {.base = cache_.data(), .blocks = blocks_},
                     {.all_to_all = all_to_all, .micro_batches = micro_batches}, sampled);
    BALEEN_CHECK(status.ok(), "a step of the benchmark succeeds");
  }

 private:
  const StepLimits limits_;
  const SampleSpec greedy_;
  std::uint32_t next_ = 0;
  std::unique_ptr<Device> device_;
  std::unique_ptr<DeepSeekModel> model_;
  std::uint32_t blocks_ = 0;
  Buffer cache_;
  std::vector<std::vector<std::uint32_t>> tables_;
  std::vector<std::vector<std::int32_t>> tokens_;
  std::vector<SequenceStep> steps_;
};

// What was sent is there kDelay later.
class Delayed final : public AllToAll {
 public:
  explicit Delayed(AllToAll& base) : base_(base) {}

  absl::Status StartDispatch(int lane, const DispatchRows& rows) override {
    sent_[lane] = std::chrono::steady_clock::now();
    return base_.StartDispatch(lane, rows);
  }
  absl::StatusOr<ArrivedRows> FinishDispatch(int lane) override {
    std::this_thread::sleep_until(sent_[lane] + kDelay);
    return base_.FinishDispatch(lane);
  }
  absl::Status StartCombine(int lane) override {
    sent_[lane] = std::chrono::steady_clock::now();
    return base_.StartCombine(lane);
  }
  absl::StatusOr<const std::byte*> FinishCombine(int lane) override {
    std::this_thread::sleep_until(sent_[lane] + kDelay);
    return base_.FinishCombine(lane);
  }

 private:
  AllToAll& base_;
  std::chrono::steady_clock::time_point sent_[kLanes];
};

// Each rank's endpoint, on its thread.
class Meeting {
 public:
  Meeting(Transport transport, const AllToAllShape& shape)
      : transport_(transport), shape_(shape), addresses_(shape.ranks), all_(shape.ranks) {
    if (transport != Transport::kUcx) loopback_ = LoopbackGroup::Make(shape).value();
  }

  std::unique_ptr<GroupEndpoint> Join(std::int32_t rank, ExchangeMeter* meter) {
    if (transport_ == Transport::kNone) return nullptr;
    if (transport_ != Transport::kUcx) return loopback_->Join(rank, meter);
    auto pending =
        PendingUcxEndpoint::Create({.shape = shape_, .rank = rank, .meter = meter}).value();
    addresses_[rank] = pending->address();
    all_.arrive_and_wait();
    return pending->ConnectUcx(1, addresses_).value();
  }

 private:
  const Transport transport_;
  const AllToAllShape shape_;
  std::unique_ptr<LoopbackGroup> loopback_;
  std::vector<std::string> addresses_;
  std::barrier<> all_;
};

struct Result {
  double one_ms = 0;   // median of a step, until the last rank has ended it, with one micro-batch
  double two_ms = 0;   // with two
  double cpu_ms = 0;   // of all ranks together, median of a step with one micro-batch
  double wait_ms = 0;  // of a step and rank, in the exchange; over both kinds of steps
};

double Median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

Result Measure(const Case& c) {
  const auto directory = ModelDirectory::Open({.directory = kModel}).value();
  const PlacementShape placement = PlacementShapeOf(directory->config(), c.ranks);
  const ModelPlacement experts = ContiguousModelPlacement(directory->config(), placement);
  AllToAllShape shape = ExchangeShapeOf(directory->config(), {.tokens_max = c.sequences * c.tokens},
                                        placement, DispatchFormat::kBf16);
  shape.wait_max = absl::Seconds(60);
  Meeting meeting(c.transport, shape);
  std::barrier<> all(c.ranks);
  std::vector<double> milliseconds[2];
  double wait_seconds = 0;
  std::vector<double> cpu_milliseconds;
  std::chrono::steady_clock::time_point begin;
  std::clock_t cpu_begin = 0;
  int steps = kStepsMax;
  const auto run = [&](std::int32_t rank) {
    Rank mine(c, {rank, experts});
    ExchangeMeter meter(c.ranks);
    const auto endpoint = meeting.Join(rank, &meter);
    std::optional<Delayed> delayed;
    if (c.transport == Transport::kDelayed) delayed.emplace(*endpoint);
    AllToAll* all_to_all = endpoint.get();
    if (delayed.has_value()) all_to_all = &*delayed;
    // Kinds alternate, so that whatever else the machine does meets both.
    for (int step = -2;; ++step) {
      all.arrive_and_wait();
      if (step == steps) break;
      if (rank == 0) {
        begin = std::chrono::steady_clock::now();
        cpu_begin = std::clock();
      }
      all.arrive_and_wait();
      mine.Step(all_to_all, 1 + (step & 1));
      all.arrive_and_wait();
      if (rank != 0) continue;
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      const double cpu = static_cast<double>(std::clock() - cpu_begin) / CLOCKS_PER_SEC;
      if (step >= 0) milliseconds[step & 1].push_back(took.count() * 1e3);
      if (step >= 0 && (step & 1) == 0) cpu_milliseconds.push_back(cpu * 1e3);
      // The others read it after the next barrier.
      if (step == -1) {
        steps = std::clamp(2 * static_cast<int>(kSecondsOfCase / 2 / took.count()), kStepsMin,
                           kStepsMax);
      }
    }
    for (std::int32_t peer = 0; rank == 0 && peer < c.ranks; ++peer) {
      wait_seconds =
          std::max(wait_seconds, meter.Read(ExchangePhase::kDispatch, peer).wait_seconds +
                                     meter.Read(ExchangePhase::kCombine, peer).wait_seconds);
    }
  };
  std::vector<std::jthread> threads;
  for (std::int32_t rank = 0; rank < c.ranks; ++rank) threads.emplace_back(run, rank);
  threads.clear();
  return {.one_ms = Median(milliseconds[0]),
          .two_ms = Median(milliseconds[1]),
          .cpu_ms = Median(cpu_milliseconds),
          .wait_ms = wait_seconds / (steps + 2) * 1e3};
}

void Efficiency() {
  std::printf("Decode steps of 32 sequences, %u cores:\n", std::thread::hardware_concurrency());
  std::printf("%-10s %6s %10s %8s %10s %8s %12s\n", "exchange", "ranks", "step ms", "of one",
              "core ms", "of one", "waiting ms");
  const Result alone = Measure({.sequences = 32});
  std::printf("%-10s %6d %10.1f %8.2f %10.1f %8.2f %12s\n", "none", 1, alone.one_ms, 1.0,
              alone.cpu_ms, 1.0, "-");
  for (const Transport transport : {Transport::kLoopback, Transport::kUcx}) {
    for (const std::int32_t ranks : {1, 2, 4}) {
      const Result result = Measure({.transport = transport,
                                     .ranks = ranks,
                                     .sequences = 32u / static_cast<unsigned>(ranks)});
      std::printf("%-10s %6d %10.1f %8.2f %10.1f %8.2f %12.1f\n", NameOf(transport), ranks,
                  result.one_ms, result.one_ms / alone.one_ms, result.cpu_ms,
                  result.cpu_ms / alone.cpu_ms, result.wait_ms);
    }
  }
}

void MicroBatches() {
  std::printf("\nTwo micro-batches against one:\n");
  std::printf("%-10s %6s %14s %10s %10s %8s\n", "exchange", "ranks", "rows of a rank", "one ms",
              "two ms", "two/one");
  for (const Transport transport : {Transport::kLoopback, Transport::kUcx, Transport::kDelayed}) {
    for (const std::int32_t ranks : {2, 4}) {
      for (const auto& [sequences, tokens] :
           {std::pair(2u, 1u), {8u, 1u}, {32u, 1u}, {128u, 1u}, {1u, 512u}}) {
        const Case c{
            .transport = transport, .ranks = ranks, .sequences = sequences, .tokens = tokens};
        const Result result = Measure(c);
        std::printf("%-10s %6d %7u %-6s %10.1f %10.1f %8.2f\n", NameOf(transport), ranks,
                    sequences * tokens, tokens > 1 ? "prompt" : "decode", result.one_ms,
                    result.two_ms, result.two_ms / result.one_ms);
        std::fflush(stdout);
      }
    }
  }
}

}  // namespace
}  // namespace baleen::worker

int main() {
  baleen::log::Init("bench", baleen::log::Format::kText, baleen::log::Level::kWarning);
  baleen::worker::Efficiency();
  baleen::worker::MicroBatches();
}
