#include "worker/model/loading/model_directory.h"

#include "observability/base/status_macros.h"
#include "proto/contract/model_name.h"
#include "worker/model/forward/batch.h"

namespace baleen::worker {

absl::StatusOr<std::unique_ptr<ModelDirectory>> ModelDirectory::Open(const ModelOptions& options) {
  std::unique_ptr<ModelDirectory> opened(new ModelDirectory());
  BALEEN_ASSIGN_OR_RETURN(opened->config_, LoadModelConfig(options.directory));
  BALEEN_ASSIGN_OR_RETURN(opened->checkpoint_, Checkpoint::Open(options.directory));
  opened->dispatch_ = options.dispatch;
  const ModelConfig& config = opened->config_;
  ModelInfo& info = opened->info_;
  BALEEN_ASSIGN_OR_RETURN(info.digest, CheckpointDigest(options.directory, *opened->checkpoint_));
  info.name = options.name.empty() ? contract::ModelNameOf(options.directory) : options.name;
  info.context_tokens = config.max_position_embeddings;
  info.vocabulary_size = config.vocab_size;
  info.eos_token_ids = config.eos_token_ids;
  info.kv_block_bytes =
      KvLayout{.layers = config.num_hidden_layers, .row = config.kv_row()}.block_bytes();
  info.arithmetic = ArithmeticOf(options.dispatch);
  info.checkpoint_bytes = opened->checkpoint_->bytes();
  return opened;
}

}  // namespace baleen::worker
