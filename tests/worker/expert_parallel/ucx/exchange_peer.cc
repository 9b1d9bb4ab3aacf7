// One rank of a group over UCX, as a process that a test drives. It says one line at a time:
//   address HEX            then reads the addresses of all ranks, one line each
//   connected
//   end NS STATUS          how its steps ended, and when by the monotonic clock
// --die-at and --stop-at make it kill or stop itself before a call of a step; it says "dying NS".
//
// usage: exchange_peer RANK RANKS STEPS ROWS WAIT_MS memory|messages [die|stop STEP CALL] | [idle
// MS]
#include <signal.h>
#include <sys/resource.h>

#include <chrono>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "observability/base/log.h"
#include "worker/expert_parallel/ucx/ucx_endpoint.h"

namespace baleen::worker {
namespace {

constexpr int kLayers = 2;

std::int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return time.tv_sec + 1e-6 * time.tv_usec; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Options {
  AllToAllShape shape;
  std::int32_t rank = 0;
  std::uint64_t steps = 0;
  bool share_memory = true;
  int signal = 0;  // to itself, before `call` of `step`
  std::uint64_t step = 0;
  int call = 0;
  int idle_ms = 0;
};

// What expert slot `slot` makes of a byte.
std::byte ExpertOf(std::int32_t slot, std::byte x) {
  return static_cast<std::byte>((static_cast<int>(x) * 167 + slot * 59 + 13) & 255);
}

class Rank {
 public:
  Rank(const Options& options, GroupEndpoint& endpoint)
      : options_(options), shape_(options.shape), endpoint_(endpoint), random_(options.rank + 1) {}

  absl::Status Run() {
    for (std::uint64_t step = 1; step <= options_.steps; ++step) {
      At(step, 0);
      const auto all = endpoint_.OpenStep({.epoch = 1, .step = step});
      if (!all.ok()) return all.status();
      for (int layer = 0; layer < kLayers; ++layer) {
        if (absl::Status status = Layer(step); !status.ok()) return status;
      }
    }
    return absl::OkStatus();
  }

 private:
  void At(std::uint64_t step, int call) const {
    if (options_.signal == 0 || step != options_.step || call != options_.call) return;
    std::cout << "dying " << NowNs() << std::endl;
    raise(options_.signal);
  }

  absl::Status Layer(std::uint64_t step) {
    const std::int64_t count = random_() % (shape_.rows_max + 1);
    std::vector<std::byte> x(count * shape_.row_bytes);
    for (std::byte& value : x) value = static_cast<std::byte>(random_());
    std::vector<std::int32_t> slots;
    for (std::int64_t row = 0; row < count; ++row) {
      const std::int32_t first = random_() % (shape_.ranks * shape_.slots_per_rank);
      for (std::int32_t i = 0; i < shape_.slots_per_row; ++i) {
        slots.push_back((first + 3 * i) % (shape_.ranks * shape_.slots_per_rank));
      }
    }
    At(step, 1);
    absl::Status status =
        endpoint_.StartDispatch(0, {.count = count, .x = x.data(), .slots = slots.data()});
    if (!status.ok()) return status;
    At(step, 2);
    const auto arrived = endpoint_.FinishDispatch(0);
    if (!arrived.ok()) return arrived.status();
    Compute(*arrived);
    At(step, 3);
    if (status = endpoint_.StartCombine(0); !status.ok()) return status;
    At(step, 4);
    const auto outputs = endpoint_.FinishCombine(0);
    if (!outputs.ok()) return outputs.status();
    return Compare(x, slots, *outputs);
  }

  void Compute(const ArrivedRows& arrived) const {
    for (std::size_t i = 0; i < arrived.entries.size(); ++i) {
      const ArrivedEntry& entry = arrived.entries[i];
      const std::int32_t slot = options_.rank * shape_.slots_per_rank + entry.slot;
      for (std::int32_t at = 0; at < shape_.output_bytes; ++at) {
        arrived.outputs[i * shape_.output_bytes + at] =
            ExpertOf(slot, arrived.x[std::int64_t{entry.row} * shape_.row_bytes + at]);
      }
    }
  }

  absl::Status Compare(const std::vector<std::byte>& x, const std::vector<std::int32_t>& slots,
                       const std::byte* outputs) const {
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const std::byte* row = x.data() + i / shape_.slots_per_row * shape_.row_bytes;
      for (std::int32_t at = 0; at < shape_.output_bytes; ++at) {
        if (outputs[i * shape_.output_bytes + at] != ExpertOf(slots[i], row[at])) {
          return absl::DataLossError("an output is not what its expert made");
        }
      }
    }
    return absl::OkStatus();
  }

  const Options& options_;
  const AllToAllShape& shape_;
  GroupEndpoint& endpoint_;
  std::mt19937 random_;
};

absl::Status Run(const Options& options) {
  auto pending = PendingUcxEndpoint::Create({.shape = options.shape,
                                             .rank = options.rank,
                                             .connect_max = absl::Seconds(20),
                                             .share_memory = options.share_memory});
  if (!pending.ok()) return pending.status();
  std::cout << "address " << absl::BytesToHexString((*pending)->address()) << std::endl;
  std::vector<std::string> addresses;
  for (std::string line;
       std::ssize(addresses) < options.shape.ranks && std::getline(std::cin, line);) {
    addresses.push_back(absl::HexStringToBytes(line));
  }
  const auto endpoint = (*pending)->ConnectUcx(1, addresses);
  if (!endpoint.ok()) return endpoint.status();
  std::cout << "connected" << std::endl;
  if (options.idle_ms > 0) {
    const double cpu_before = CpuSeconds();
    const auto awaited = (*endpoint)->AwaitPeers(absl::Milliseconds(options.idle_ms));
    if (!awaited.ok()) return awaited.status();
    std::cout << "cpu " << CpuSeconds() - cpu_before << std::endl;
  }
  const absl::Status status = Rank(options, **endpoint).Run();
  std::cout << "end " << NowNs() << " " << status << std::endl;
  return status;
}

Options ReadOptions(int argc, char** argv) {
  Options options;
  options.rank = std::stoi(argv[1]);
  options.steps = std::stoul(argv[3]);
  options.shape = {.ranks = std::stoi(argv[2]),
                   .slots_per_rank = 8,
                   .slots_per_row = 4,
                   .row_bytes = 1024,
                   .output_bytes = 768,
                   .rows_max = std::stoi(argv[4]),
                   .wait_max = absl::Milliseconds(std::stoi(argv[5]))};
  options.share_memory = std::strcmp(argv[6], "memory") == 0;
  const std::string last = argc > 7 ? argv[7] : "";
  if (last == "idle") options.idle_ms = std::stoi(argv[8]);
  if (last == "die" || last == "stop") {
    options.signal = last == "die" ? SIGKILL : SIGSTOP;
    options.step = std::stoul(argv[8]);
    options.call = std::stoi(argv[9]);
  }
  return options;
}

}  // namespace
}  // namespace baleen::worker

int main(int argc, char** argv) {
  if (argc < 7) return 2;
  baleen::log::Init("exchange_peer", baleen::log::Format::kText, baleen::log::Level::kError);
  const absl::Status status = baleen::worker::Run(baleen::worker::ReadOptions(argc, argv));
  if (!status.ok()) std::cout << "failed " << status << std::endl;
  return status.ok() ? 0 : 1;
}
