// The exchange over NCCL for real: one rank for each GPU of this machine (one GPU: a rank that
// sends to itself). Skipped without a GPU.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <barrier>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "worker/expert_parallel/loopback_all_to_all.h"
#include "worker/expert_parallel/nccl/nccl_collectives.h"
#include "worker/expert_parallel/nccl/nccl_endpoint.h"

namespace baleen::worker {
namespace {

constexpr std::int32_t kRanksMax = 8;

int Gpus() {
  int gpus = 0;
  if (cudaGetDeviceCount(&gpus) == cudaSuccess) return gpus;
  cudaGetLastError();
  return 0;
}

#define BALEEN_NEEDS_A_GPU() \
  if (Gpus() == 0) GTEST_SKIP() << "no GPU on this machine: not tested"

AllToAllShape Shape(std::int32_t ranks, std::int32_t row_bytes, std::int32_t output_bytes) {
  return {.ranks = ranks,
          .slots_per_rank = 12 / ranks + 1,
          .slots_per_row = 3,
          .row_bytes = row_bytes,
          .output_bytes = output_bytes,
          .rows_max = 64,
          .wait_max = absl::Seconds(20)};
}

// A rank's GPU, its model's stream, and its end of the group.
class Rank {
 public:
  Rank(const AllToAllShape& shape, std::int32_t rank, const std::string& id, LoopbackGroup& host)
      : shape_(shape), rank_(rank) {
    EXPECT_EQ(cudaSetDevice(rank), cudaSuccess);
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    const std::size_t x_bytes = std::size_t(shape.rows_max) * shape.row_bytes;
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&x_), x_bytes), cudaSuccess);
    auto joined = NcclCollectives::Join(
        {.id = id,
         .rank = rank,
         .ranks = shape.ranks,
         .device = rank,
         .model_stream = stream_,
         .buffer_bytes = NcclBufferBytes(shape),
         .rows_copied_max = std::size_t(shape.rows_max) * shape.slots_per_row});
    if (!joined.ok()) {
      ADD_FAILURE() << joined.status();
      return;
    }
    endpoint_ = std::make_unique<NcclEndpoint>(
        shape, NcclEndpoint::Parts{.rank = rank,
                                   .host = host.Join(rank),
                                   .collectives = std::move(joined->collectives),
                                   .buffers = joined->buffers});
  }
  ~Rank() {
    endpoint_.reset();  // before what waits for the device
    cudaFree(x_);
    cudaStreamDestroy(stream_);
  }

  const std::byte* x() const { return x_; }
  GroupEndpoint* endpoint() { return endpoint_.get(); }

  // A layer with `count` random rows: nothing if every output is home and right.
  void RunLayer(int lane, std::int64_t count, std::mt19937& random) {
    std::vector<std::uint8_t> x(count * shape_.row_bytes);
    for (std::uint8_t& value : x) value = static_cast<std::uint8_t>(random());
    std::vector<std::int32_t> slots;
    std::vector<std::int32_t> all(shape_.ranks * shape_.slots_per_rank);
    std::iota(all.begin(), all.end(), 0);
    for (std::int64_t row = 0; row < count; ++row) {
      std::ranges::shuffle(all, random);
      slots.insert(slots.end(), all.begin(), all.begin() + shape_.slots_per_row);
    }
    cudaMemcpyAsync(x_, x.data(), x.size(), cudaMemcpyHostToDevice, stream_);
    ASSERT_TRUE(
        endpoint_->StartDispatch(lane, {.count = count, .x = x_, .slots = slots.data()}).ok());
    const auto arrived = endpoint_->FinishDispatch(lane);
    ASSERT_TRUE(arrived.ok()) << arrived.status();
    Compute(*arrived);
    ASSERT_TRUE(endpoint_->StartCombine(lane).ok());
    const auto outputs = endpoint_->FinishCombine(lane);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    std::vector<std::uint8_t> got(slots.size() * shape_.output_bytes);
    ASSERT_EQ(cudaMemcpy(got.data(), *outputs, got.size(), cudaMemcpyDeviceToHost), cudaSuccess);
    for (std::size_t i = 0; i < got.size(); ++i) {
      const std::size_t entry = i / shape_.output_bytes;
      const std::size_t row = entry / shape_.slots_per_row;
      const std::size_t column = i % shape_.output_bytes;
      ASSERT_EQ(got[i], Of(slots[entry], x[row * shape_.row_bytes + column]))
          << "rank " << rank_ << " row " << row << " byte " << i;
    }
  }

 private:
  static std::uint8_t Of(std::int32_t slot, std::uint8_t x) {
    return static_cast<std::uint8_t>((x ^ (slot * 77 + 5)) * 151);
  }

  // The experts' part, by way of the host.
  void Compute(const ArrivedRows& arrived) {
    if (arrived.entries.empty()) return;
    std::vector<std::uint8_t> rows((arrived.entries.back().row + 1) * shape_.row_bytes);
    ASSERT_EQ(cudaMemcpy(rows.data(), arrived.x, rows.size(), cudaMemcpyDeviceToHost), cudaSuccess);
    std::vector<std::uint8_t> outputs;
    for (const ArrivedEntry& entry : arrived.entries) {
      const std::int32_t slot = rank_ * shape_.slots_per_rank + entry.slot;
      for (std::int32_t column = 0; column < shape_.output_bytes; ++column) {
        outputs.push_back(Of(slot, rows[entry.row * shape_.row_bytes + column]));
      }
    }
    ASSERT_EQ(cudaMemcpyAsync(arrived.outputs, outputs.data(), outputs.size(),
                              cudaMemcpyHostToDevice, stream_),
              cudaSuccess);
  }

  const AllToAllShape shape_;
  const std::int32_t rank_;
  cudaStream_t stream_ = nullptr;
  std::byte* x_ = nullptr;
  std::unique_ptr<GroupEndpoint> endpoint_;
};

// Rows of all widths that the copy kernel tells apart: 16, 4 and 1 bytes at a time.
TEST(NcclOnGpus, EveryOutputComesHome) {
  BALEEN_NEEDS_A_GPU();
  for (const auto& [row_bytes, output_bytes] : {std::pair{7168, 4096}, {44, 40}, {7, 5}}) {
    const AllToAllShape shape = Shape(std::min(Gpus(), kRanksMax), row_bytes, output_bytes);
    const auto host = LoopbackGroup::Make(HostShape(shape)).value();
    const auto id = MakeNcclId();
    ASSERT_TRUE(id.ok()) << id.status();
    std::barrier over(shape.ranks);
    std::vector<std::jthread> threads;
    for (std::int32_t number = 0; number < shape.ranks; ++number) {
      threads.emplace_back([&, number] {
        Rank rank(shape, number, *id, *host);
        std::mt19937 random(number);
        for (int layer = 0; layer < 20 && rank.endpoint() != nullptr; ++layer) {
          const std::int64_t count = layer % 5 == 0 ? 0 : random() % (shape.rows_max + 1);
          rank.RunLayer(layer % kLanes, count, random);
        }
        over.arrive_and_wait();
      });
    }
  }
}

// The other GPUs' ranks say that they will send, and do not.
TEST(NcclOnGpus, AWaitForAGpuThatSendsNothingEnds) {
  if (Gpus() < 2) GTEST_SKIP() << "no two GPUs on this machine: not tested";
  AllToAllShape shape = Shape(2, 64, 64);
  shape.wait_max = absl::Milliseconds(500);
  const auto host = LoopbackGroup::Make(HostShape(shape)).value();
  const auto id = MakeNcclId();
  ASSERT_TRUE(id.ok()) << id.status();
  std::barrier over(2);
  std::vector<std::jthread> threads;
  for (std::int32_t number = 0; number < 2; ++number) {
    threads.emplace_back([&, number] {
      Rank rank(shape, number, *id, *host);
      if (rank.endpoint() != nullptr) {
        const std::vector<std::int32_t> slots = {0, 1, 2};  // of rank 0
        EXPECT_TRUE(rank.endpoint()
                        ->StartDispatch(0, {.count = 1, .x = rank.x(), .slots = slots.data()})
                        .ok());
        if (number == 0) {
          EXPECT_EQ(rank.endpoint()->FinishDispatch(0).status().code(),
                    absl::StatusCode::kDeadlineExceeded);
        }
      }
      over.arrive_and_wait();
    });
  }
}

}  // namespace
}  // namespace baleen::worker
