// The yardstick of all_to_all_bench: the same bytes by MPI_Alltoallv, without packing rows before
// and sorting outputs after. Run by mpirun; rank 0 prints the milliseconds of dispatch, combine and
// step, each the median of the slowest rank.
//
// usage: mpi_all_to_all TOKENS
#include <mpi.h>

#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

#include "worker/expert_parallel/bench/exchange_load.h"
#include "worker/expert_parallel/dispatch_plan.h"

namespace baleen::worker {
namespace {

// In rows: the counts of MPI are 32 bits wide.
struct Exchange {
  std::vector<int> send_counts, send_begin, receive_counts, receive_begin;
  std::vector<std::byte> send, receive;
};

Exchange MakeExchange(const AllToAllShape& shape, std::vector<int> send, std::vector<int> receive) {
  Exchange exchange{.send_counts = std::move(send),
                    .send_begin = std::vector<int>(shape.ranks + 1),
                    .receive_counts = std::move(receive),
                    .receive_begin = std::vector<int>(shape.ranks + 1)};
  std::partial_sum(exchange.send_counts.begin(), exchange.send_counts.end(),
                   exchange.send_begin.begin() + 1);
  std::partial_sum(exchange.receive_counts.begin(), exchange.receive_counts.end(),
                   exchange.receive_begin.begin() + 1);
  const std::size_t row_bytes = shape.row_bytes;
  exchange.send.assign(exchange.send_begin.back() * row_bytes, std::byte{1});
  exchange.receive.assign(exchange.receive_begin.back() * row_bytes, std::byte{2});
  return exchange;
}

void Run(Exchange& exchange, MPI_Datatype row) {
  MPI_Alltoallv(exchange.send.data(), exchange.send_counts.data(), exchange.send_begin.data(), row,
                exchange.receive.data(), exchange.receive_counts.data(),
                exchange.receive_begin.data(), row, MPI_COMM_WORLD);
}

double GatherMedian(const std::vector<double>& mine, int ranks) {
  std::vector<double> all(mine.size() * ranks);
  const int steps = static_cast<int>(mine.size());
  MPI_Gather(mine.data(), steps, MPI_DOUBLE, all.data(), steps, MPI_DOUBLE, 0, MPI_COMM_WORLD);
  std::vector<std::vector<double>> by_rank;
  for (int rank = 0; rank < ranks; ++rank) {
    by_rank.emplace_back(all.begin() + rank * steps, all.begin() + (rank + 1) * steps);
  }
  return 1e3 * MedianOfSlowest(by_rank);
}

void Bench(std::int32_t tokens) {
  int ranks = 0;
  int rank = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const AllToAllShape shape = BenchShape(ranks, tokens);
  std::vector<int> rows_to(ranks), entries_to(ranks), rows_from(ranks), entries_from(ranks);
  for (int peer = 0; peer < ranks; ++peer) {
    DispatchPlan plan(shape);
    const auto plan_of = [&](int home) -> DispatchPlan& {
      const std::vector<std::int32_t> slots = BenchSlots(shape, home);
      if (!plan.Assign({.count = tokens, .slots = slots.data()}).ok()) std::abort();
      return plan;
    };
    rows_to[peer] = static_cast<int>(plan_of(rank).RowsTo(peer).size());
    entries_to[peer] = static_cast<int>(plan.EntriesTo(peer).size());
    rows_from[peer] = static_cast<int>(plan_of(peer).RowsTo(rank).size());
    entries_from[peer] = static_cast<int>(plan.EntriesTo(rank).size());
  }
  Exchange dispatch = MakeExchange(shape, rows_to, rows_from);
  Exchange combine = MakeExchange(shape, entries_from, entries_to);
  MPI_Datatype row;
  MPI_Type_contiguous(shape.row_bytes, MPI_BYTE, &row);
  MPI_Type_commit(&row);
  BenchTimes times;
  const int steps = BenchSteps(tokens);
  for (int step = -steps / 10 - 2; step < steps; ++step) {
    const double begin = MPI_Wtime();
    Run(dispatch, row);
    const double middle = MPI_Wtime();
    Run(combine, row);
    const double end = MPI_Wtime();
    if (step < 0) continue;
    times.dispatch.push_back(middle - begin);
    times.combine.push_back(end - middle);
    times.step.push_back(end - begin);
  }
  const double milliseconds[] = {GatherMedian(times.dispatch, ranks),
                                 GatherMedian(times.combine, ranks),
                                 GatherMedian(times.step, ranks)};
  if (rank == 0) std::printf("%f %f %f\n", milliseconds[0], milliseconds[1], milliseconds[2]);
}

}  // namespace
}  // namespace baleen::worker

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  if (argc == 2) baleen::worker::Bench(std::stoi(argv[1]));
  MPI_Finalize();
  return argc == 2 ? 0 : 2;
}
