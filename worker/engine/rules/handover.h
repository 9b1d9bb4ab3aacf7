// What a prefill rank tells the decode rank about a prompt when its KV is complete: the manifest of
// the KV transfer.
//
// 32 bytes, little-endian: "BKV1", prompt tokens (u32), first token (i32), sampling position (u32),
// prompt hash (u64), model hash (u64).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "worker/model/model.h"

namespace baleen::worker {

struct Handover {
  std::uint32_t prompt_tokens = 0;
  std::int32_t first_token = -1;  // sampled from the prompt's last position
  std::uint32_t sampling_position =
      0;  // the position of the first token: its random numbers were keyed by it
  std::uint64_t prompt_hash = 0;  // of the token ids, see HashPrompt
  std::uint64_t model_hash = 0;   // see HashModel

  friend bool operator==(const Handover&, const Handover&) = default;
};

// FNV-1a. They catch a mix-up, not an attacker: who can send on the data plane is the data plane's
// business.
std::uint64_t HashPrompt(std::span<const std::int32_t> prompt);
std::uint64_t HashModel(const ModelInfo& model);  // digest and arithmetic

std::string Serialize(const Handover& handover);
// INVALID_ARGUMENT for any other size or tag.
absl::StatusOr<Handover> ParseHandover(std::string_view manifest);

// OK when `received` continues `prompt` on `model`; FAILED_PRECONDITION names the field that does
// not fit.
absl::Status VerifyHandover(const Handover& received, std::span<const std::int32_t> prompt,
                            const ModelInfo& model);

}  // namespace baleen::worker
