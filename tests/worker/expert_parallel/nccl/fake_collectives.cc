#include "tests/worker/expert_parallel/nccl/fake_collectives.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <utility>

#include "observability/base/check.h"

namespace baleen::worker {

class FakeCollectives final : public Collectives {
 public:
  FakeCollectives(FakeNetwork& network, std::int32_t rank, std::span<std::byte> memory)
      : network_(network), rank_(rank), memory_(memory) {}

  absl::Status FollowModel(int lane) override {
    Asked("follow model");
    return absl::OkStatus();
  }

  absl::Status CopyRows(int lane, const RowCopy& copy) override {
    const bool gather = copy.kind == RowCopy::Kind::kGather;
    Asked(fmt::format("{} {} rows", gather ? "gather" : "scatter", copy.places.size()));
    BALEEN_CHECK(!copies_[lane].has_value(), "one copy at a time in a lane");
    copies_[lane] = copy;
    return absl::OkStatus();
  }

  absl::Status Exchange(int lane, std::span<const DeviceBytes> sends,
                        std::span<const DeviceBytes> receives) override {
    Asked("exchange");
    BALEEN_CHECK(!Exchanges(lane), "one exchange at a time in a lane");
    RunCopy(lane);
    for (std::int32_t to = 0; to < network_.ranks_; ++to) {
      CheckWithin(sends[to]);
      CheckWithin(receives[to]);
      if (sends[to].size == 0) continue;
      network_.Send(rank_, to, lane, {sends[to].begin, sends[to].begin + sends[to].size});
    }
    exchanges_.push_back({.lane = lane, .receives = {receives.begin(), receives.end()}});
    return absl::OkStatus();
  }

  // Exchanges are in order among themselves: those of the other lane that were asked for before
  // come first.
  absl::StatusOr<bool> Await(int lane, absl::Duration limit) override {
    const SteadyTime end = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(limit);
    while (Exchanges(lane)) {
      const int number = exchanges_.front().lane;
      for (std::int32_t from = 0; from < network_.ranks_; ++from) {
        const absl::StatusOr<bool> done = Receive(number, from, end);
        if (!done.ok() || !*done) return done;
      }
      exchanges_.pop_front();
    }
    RunCopy(lane);
    return true;
  }

  void Abort() override {
    const std::lock_guard lock(network_.mutex_);
    aborted_ = true;
    network_.changed_.notify_all();
  }

 private:
  using SteadyTime = std::chrono::steady_clock::time_point;

  struct PendingExchange {
    int lane = 0;
    std::vector<DeviceBytes> receives;  // those that have come have size 0
  };

  bool Exchanges(int lane) const {
    return std::ranges::any_of(exchanges_, [&](const auto& e) { return e.lane == lane; });
  }

  // What is to come from one rank in the first exchange.
  absl::StatusOr<bool> Receive(int lane, std::int32_t from, SteadyTime end) {
    DeviceBytes& receive = exchanges_.front().receives[from];
    if (receive.size == 0) return true;
    std::unique_lock lock(network_.mutex_);
    auto& pair = network_.pairs_[from * network_.ranks_ + rank_];
    const bool in_time =
        network_.changed_.wait_until(lock, end, [&] { return !pair.empty() || aborted_; });
    if (aborted_) return absl::CancelledError("the fake NCCL was aborted");
    if (!in_time) {
      ++network_.logs_[rank_].limits;
      network_.changed_.notify_all();
      return false;
    }
    const FakeNetwork::Message& message = pair.front();
    if (message.lane != lane || message.bytes.size() != receive.size) {
      return absl::InternalError(
          fmt::format("rank {} sent {} bytes in lane {}, rank {} receives {} in lane {}", from,
                      message.bytes.size(), message.lane, rank_, receive.size, lane));
    }
    std::memcpy(receive.begin, message.bytes.data(), receive.size);
    receive.size = 0;
    pair.pop_front();
    return true;
  }

  void Asked(std::string what) {
    const std::lock_guard lock(network_.mutex_);
    network_.logs_[rank_].asked.push_back(std::move(what));
  }

  void CheckWithin(const DeviceBytes& bytes) const {
    BALEEN_CHECK(bytes.begin >= memory_.data() &&
                     bytes.begin + bytes.size <= memory_.data() + memory_.size(),
                 "bytes within the buffers");
  }

  void RunCopy(int lane) {
    if (!copies_[lane].has_value()) return;
    const RowCopy copy = *std::exchange(copies_[lane], std::nullopt);
    CheckWithin({.begin = copy.to, .size = copy.places.size() * copy.row_bytes});
    for (std::size_t i = 0; i < copy.places.size(); ++i) {
      const bool gather = copy.kind == RowCopy::Kind::kGather;
      const std::size_t from = gather ? copy.places[i] : i;
      const std::size_t to = gather ? i : copy.places[i];
      std::memcpy(copy.to + to * copy.row_bytes, copy.from + from * copy.row_bytes, copy.row_bytes);
    }
  }

  FakeNetwork& network_;
  const std::int32_t rank_;
  const std::span<std::byte> memory_;
  std::array<std::optional<RowCopy>, kLanes> copies_;
  std::deque<PendingExchange> exchanges_;
  bool aborted_ = false;  // under the network's mutex
};

std::unique_ptr<Collectives> FakeNetwork::Join(std::int32_t rank, std::span<std::byte> memory) {
  return std::make_unique<FakeCollectives>(*this, rank, memory);
}

std::vector<std::string> FakeNetwork::AskedOf(std::int32_t rank) {
  const std::lock_guard lock(mutex_);
  return logs_[rank].asked;
}

void FakeNetwork::AwaitLimits(std::int32_t rank, int times) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return logs_[rank].limits >= times; });
}

void FakeNetwork::Send(std::int32_t source, std::int32_t to, int lane,
                       std::vector<std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  pairs_[source * ranks_ + to].push_back({.lane = lane, .bytes = std::move(bytes)});
  changed_.notify_all();
}

}  // namespace baleen::worker
