// One step of one layer over UCX between 2, 4 and 8 processes of this machine: dispatch and combine
// without experts between them. Beside it MPI_Alltoallv with the same bytes, and memcpy of the same
// bytes by all ranks at a time, all in turn in one run.
//
// usage: all_to_all_bench [RANKS TOKENS]...
#include <benchmark/benchmark.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "worker/expert_parallel/bench/exchange_load.h"
#include "worker/expert_parallel/dispatch_plan.h"
#include "worker/expert_parallel/ucx/ucx_endpoint.h"

namespace baleen::worker {
namespace {

constexpr int kRanksMax = 8;
constexpr int kStepsMax = 2'000;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// What the processes of one run have in common.
struct Shared {
  pthread_barrier_t barrier;
  char addresses[kRanksMax][4096];
  std::size_t address_bytes[kRanksMax];
  struct Rank {
    double dispatch[kStepsMax], combine[kStepsMax], step[kStepsMax], copy[kStepsMax];
  } ranks[kRanksMax];
  double sent_bytes;  // by rank 0 in a step, to others
};

void Meet(Shared& shared) { pthread_barrier_wait(&shared.barrier); }

std::unique_ptr<UcxEndpoint> Join(Shared& shared, const AllToAllShape& shape, int rank) {
  auto pending =
      PendingUcxEndpoint::Create({.shape = shape, .rank = rank, .connect_max = absl::Seconds(60)});
  BALEEN_CHECK(pending.ok(), "UCX starts on this machine");
  const std::string& address = (*pending)->address();
  std::memcpy(shared.addresses[rank], address.data(), address.size());
  shared.address_bytes[rank] = address.size();
  Meet(shared);
  std::vector<std::string> addresses;
  for (int peer = 0; peer < shape.ranks; ++peer) {
    addresses.emplace_back(shared.addresses[peer], shared.address_bytes[peer]);
  }
  auto endpoint = (*pending)->ConnectUcx(1, addresses);
  BALEEN_CHECK(endpoint.ok(), "the ranks of one machine connect");
  return *std::move(endpoint);
}

void TimeSteps(Shared& shared, const AllToAllShape& shape, int rank) {
  const std::unique_ptr<UcxEndpoint> endpoint = Join(shared, shape, rank);
  const std::vector<std::int32_t> slots = BenchSlots(shape, rank);
  const std::vector<std::byte> x(std::size_t(shape.rows_max) * shape.row_bytes, std::byte{1});
  const DispatchRows rows{.count = shape.rows_max, .x = x.data(), .slots = slots.data()};
  const int steps = BenchSteps(shape.rows_max);
  std::size_t computed = 0;
  for (int step = -steps / 10 - 2; step < steps; ++step) {
    const double begin = Now();
    BALEEN_CHECK(endpoint->StartDispatch(0, rows).ok(), "a dispatch starts");
    const auto arrived = endpoint->FinishDispatch(0);
    BALEEN_CHECK(arrived.ok(), "a dispatch arrives");
    const double middle = Now();
    if (computed < arrived->entries.size()) {  // the experts' outputs are there
      computed = arrived->entries.size();
      std::memset(arrived->outputs, 3, computed * shape.output_bytes);
    }
    const double computed_at = Now();
    BALEEN_CHECK(endpoint->StartCombine(0).ok(), "a combine starts");
    BALEEN_CHECK(endpoint->FinishCombine(0).ok(), "a combine arrives");
    const double end = Now();
    if (step < 0) continue;
    shared.ranks[rank].dispatch[step] = middle - begin;
    shared.ranks[rank].combine[step] = end - computed_at;
    shared.ranks[rank].step[step] = end - begin - (computed_at - middle);
  }
  Meet(shared);
}

// The bytes that this rank writes in a step, as one memcpy of all that a step moves.
void TimeCopy(Shared& shared, const AllToAllShape& shape, int rank) {
  const std::vector<std::int32_t> slots = BenchSlots(shape, rank);
  DispatchPlan plan(shape);
  BALEEN_CHECK(plan.Assign({.count = shape.rows_max, .slots = slots.data()}).ok(), "good slots");
  std::size_t bytes = 0;
  std::size_t to_others = 0;
  for (int peer = 0; peer < shape.ranks; ++peer) {
    const std::size_t part = plan.RowsTo(peer).size() * shape.row_bytes +
                             plan.EntriesTo(peer).size() * shape.output_bytes;
    bytes += part;
    if (peer != rank) to_others += part;
  }
  if (rank == 0) shared.sent_bytes = static_cast<double>(to_others);
  const std::vector<std::byte> from(bytes, std::byte{1});
  std::vector<std::byte> to(bytes, std::byte{2});
  for (int step = 0; step < BenchSteps(shape.rows_max); ++step) {
    const double begin = Now();
    std::memcpy(to.data(), from.data(), bytes);
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
    shared.ranks[rank].copy[step] = Now() - begin;
  }
  Meet(shared);
}

using Measure = void (*)(Shared&, const AllToAllShape&, int);

void RunRanks(Shared& shared, const AllToAllShape& shape, Measure measure) {
  std::vector<pid_t> children;
  for (int rank = 0; rank < shape.ranks; ++rank) {
    const pid_t child = fork();
    BALEEN_CHECK(child >= 0, "a process for each rank");
    if (child == 0) {
      log::Init("all_to_all_bench", log::Format::kText, log::Level::kWarning);
      alarm(300);  // nobody waits for ever for a rank that has ended
      measure(shared, shape, rank);
      _exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    BALEEN_CHECK(status == 0, "each rank ends well");
  }
}

double MedianMs(const Shared& shared, const AllToAllShape& shape,
                const double (Shared::Rank::*times)[kStepsMax]) {
  std::vector<std::vector<double>> by_rank;
  for (int rank = 0; rank < shape.ranks; ++rank) {
    const double* begin = shared.ranks[rank].*times;
    by_rank.emplace_back(begin, begin + BenchSteps(shape.rows_max));
  }
  return 1e3 * MedianOfSlowest(by_rank);
}

// Dispatch, combine and step in milliseconds; false if MPI is not there.
bool RunMpi(const AllToAllShape& shape, double (&ms)[3]) {
  char self[4096];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof(self));
  if (length <= 0) return false;
  const std::string here(self, length);
  const std::string program = here.substr(0, here.rfind('/')) + "/../bench-mpi/mpi_all_to_all";
  if (access(program.c_str(), X_OK) != 0) return false;
  const std::string command =
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun -n " +
      std::to_string(shape.ranks) + " --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 " +
      program + " " + std::to_string(shape.rows_max) + " 2>/dev/null";
  std::FILE* out = popen(command.c_str(), "r");
  if (out == nullptr) return false;
  const bool read = std::fscanf(out, "%lf %lf %lf", &ms[0], &ms[1], &ms[2]) == 3;
  return pclose(out) == 0 && read;
}

// Bytes that a run touches on all ranks, at most.
double MemoryNeed(const AllToAllShape& shape) {
  const double rows = double(shape.rows_max) * shape.row_bytes;
  return shape.ranks * rows *
         (1 + std::min(shape.ranks, shape.slots_per_row) + 2 * shape.slots_per_row);
}

double MemoryAvailable() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  double kilobytes = 0;
  while (file >> name >> kilobytes) {
    if (name == "MemAvailable:") return kilobytes * 1024;
    file.ignore(80, '\n');
  }
  return 0;
}

void BenchOne(std::int32_t ranks, std::int32_t tokens) {
  const AllToAllShape shape = BenchShape(ranks, tokens);
  // MPI holds a packed copy of everything on either side.
  if (2 * MemoryNeed(shape) > MemoryAvailable()) {
    std::printf("%5d %6d   left out: it needs %.0f GB of memory, %.0f are free\n", ranks, tokens,
                2e-9 * MemoryNeed(shape), 1e-9 * MemoryAvailable());
    return;
  }
  auto* shared = static_cast<Shared*>(
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  BALEEN_CHECK(shared != MAP_FAILED, "memory for the results");
  pthread_barrierattr_t attributes;
  pthread_barrierattr_init(&attributes);
  pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_barrier_init(&shared->barrier, &attributes, ranks);
  RunRanks(*shared, shape, TimeSteps);
  double mpi[3] = {};
  const bool has_mpi = RunMpi(shape, mpi);
  RunRanks(*shared, shape, TimeCopy);
  const double step = MedianMs(*shared, shape, &Shared::Rank::step);
  const double copy = MedianMs(*shared, shape, &Shared::Rank::copy);
  std::printf("%5d %6d %9.3f %9.3f %9.3f", ranks, tokens,
              MedianMs(*shared, shape, &Shared::Rank::dispatch),
              MedianMs(*shared, shape, &Shared::Rank::combine), step);
  has_mpi ? std::printf(" %9.3f %6.2f", mpi[2], step / mpi[2]) : std::printf("         -      -");
  std::printf(" %9.3f %6.2f %9.0f %5d\n", copy, step / copy, shared->sent_bytes / tokens,
              2 * (ranks - 1));
  std::fflush(stdout);
  munmap(shared, sizeof(Shared));
}

}  // namespace
}  // namespace baleen::worker

int main(int argc, char** argv) {
  std::printf(
      "milliseconds, median over steps of the slowest rank; bytes a token sends to others;\n"
      "messages a rank sends in a step (without MPI: install openmpi-bin libopenmpi-dev)\n"
      "ranks tokens  dispatch   combine      step  MPI step  ratio    memcpy  ratio    bytes "
      "msgs\n");
  if (argc > 1) {
    for (int i = 1; i + 1 < argc; i += 2) {
      baleen::worker::BenchOne(std::stoi(argv[i]), std::stoi(argv[i + 1]));
    }
    return 0;
  }
  for (const int ranks : {2, 4, 8}) {
    for (const int tokens : {1, 16, 128, 1024, 4096}) baleen::worker::BenchOne(ranks, tokens);
  }
}
