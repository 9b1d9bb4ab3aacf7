// The mixture of experts: the gate chooses experts for each token, each expert computes its tokens,
// the outputs are combined. In a group the experts are on its ranks, and tokens travel to them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/expert_parallel/all_to_all.h"
#include "worker/model/config.h"
#include "worker/model/expert_host.h"
#include "worker/model/experts/expert_bank.h"
#include "worker/model/forward/mlp.h"
#include "worker/model/weights.h"

namespace baleen::worker {

// One call for each of the three parts of a layer, in their order; those of two lanes may be
// interleaved, so that one lane's rows travel while the other's are computed. Errors are those of
// the all-to-all, and FAILED_PRECONDITION where it brings more than the ranks may send; after one,
// nothing of the step may be used.
class Moe {
 public:
  struct Limits {
    std::int64_t rows_max = 0;  // of all lanes together
    std::int32_t ranks = 1;
    std::int32_t slots_per_rank = 0;
    DispatchFormat dispatch = DispatchFormat::kBf16;
  };

  // One layer's weights. `mlp` is scratch, for any MLP of the layer.
  struct Layer {
    std::int32_t index = 0;  // among MoE layers
    const MoeWeights& weights;
    const ExpertBank& experts;
    const Mlp& mlp;
  };

  // Rows of a lane: the same in all three calls. x_bf16 stays as it is from Start to Compute.
  struct Lane {
    int number = 0;
    AllToAll* all_to_all = nullptr;  // null: all experts are here
    std::int64_t first_row = 0;      // lanes have their own rows of the scratch
    std::int64_t count = 0;
    // The normed input, in fp32 for the gate and in bf16 for the experts.
    const float* x = nullptr;                  // [count][hidden]
    const std::uint16_t* x_bf16 = nullptr;     // bf16 [count][hidden]
    const std::uint64_t* requests = nullptr;   // [count]
    const std::uint32_t* positions = nullptr;  // [count]
    float* y = nullptr;                        // [count][hidden]
  };

  static absl::StatusOr<Moe> Make(const ModelConfig& config, Device& device, const Limits& limits);

  // Chooses experts and sends the rows to them; the shared expert computes meanwhile. Counts in
  // `load`.
  absl::Status Start(const Layer& layer, const Lane& lane, ExpertLoad& load);
  // Computes what has come for the experts of this rank, and sends it home.
  absl::Status Compute(const Layer& layer, const Lane& lane);
  // Combines what comes back.
  absl::Status Finish(const Layer& layer, const Lane& lane);

 private:
  // What the experts of this rank are to compute, and where outputs go: bf16 [entries][hidden].
  struct Work {
    const std::byte* x = nullptr;  // [..][row_bytes]
    std::span<const ArrivedEntry> entries;
    std::uint16_t* outputs = nullptr;
  };

  std::int64_t Entry(std::int64_t row) const { return row * route_.slots_per_row; }
  const std::byte* DispatchedRows(const Lane& lane) const;
  void Route(const Layer& layer, const Lane& lane, ExpertLoad& load);
  void ChooseSlots(const LayerPlacement& placement, const Lane& lane);
  void Quantize(const Lane& lane);
  Work LocalWork(const Lane& lane);
  absl::Status Run(const Layer& layer, const Work& work);
  void RunExpert(const Layer& layer, const Work& work, std::int32_t slot);

  const kernels::OpTable* ops_ = nullptr;
  Limits limits_;
  kernels::RouteParams route_;  // everything that does not change from call to call
  std::int64_t hidden_ = 0;
  DispatchRowLayout row_;
  Array<float> logits_;                // [rows][experts]
  Array<std::int32_t> ids_;            // [rows][slots]
  Array<float> route_weights_;         // [rows][slots]
  Array<std::int32_t> slots_;          // [rows][slots]: where the experts are
  Array<std::byte> quantized_;         // kFp8: [rows][row_bytes]
  Array<std::uint16_t> outputs_;       // one rank: bf16 [rows][slots][hidden], as from the group
  Array<float> shared_;                // [rows][hidden]
  Array<std::uint16_t> expert_input_;  // kFp8: bf16 [rows][hidden], of one expert
  std::vector<std::uint32_t> counts_;  // [experts]
  // Slot s of this rank computes the entries [slot_begin_[s], slot_begin_[s + 1]): rows of
  // Work::x, and where their outputs go.
  std::vector<std::int32_t> slot_begin_;  // [slots_per_rank + 1]
  Array<std::int32_t> entry_rows_;        // [entries_max]
  Array<std::int32_t> entry_outputs_;     // [entries_max]
  std::vector<ArrivedEntry> local_;       // one rank: [rows * slots]
};

}  // namespace baleen::worker
