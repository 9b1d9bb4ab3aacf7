// Cosines and sines of every position of the context.
#include "worker/model/forward/rope_table.h"

#include "kernels/include/elementary.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {

absl::StatusOr<RopeTable> MakeRopeTable(const ModelConfig& config, Device& device) {
  const auto& frequencies = config.rope_inverse_frequencies;
  const std::size_t entries = std::size_t{config.max_position_embeddings} * frequencies.size();
  RopeTable table{.pairs = static_cast<std::int64_t>(frequencies.size())};
  BALEEN_ASSIGN_OR_RETURN(table.cosines, Array<float>::Make(device, entries));
  BALEEN_ASSIGN_OR_RETURN(table.sines, Array<float>::Make(device, entries));
  std::size_t at = 0;
  for (std::uint32_t position = 0; position < config.max_position_embeddings; ++position) {
    for (const float frequency : frequencies) {
      // The angle is rounded to fp32, as in the code that these models were trained with.
      const float angle = static_cast<float>(position) * frequency;
      const auto [cosine, sine] = kernels::CosineSine(static_cast<double>(angle));
      table.cosines.data()[at] = static_cast<float>(cosine) * config.rope_attention_factor;
      table.sines.data()[at] = static_cast<float>(sine) * config.rope_attention_factor;
      ++at;
    }
  }
  return table;
}

}  // namespace baleen::worker
