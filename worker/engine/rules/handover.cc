#include "worker/engine/rules/handover.h"

#include <fmt/format.h>

#include <cstddef>
#include <type_traits>

namespace baleen::worker {
namespace {

constexpr std::string_view kTag = "BKV1";
constexpr std::size_t kManifestBytes = 4 + 4 + 4 + 4 + 8 + 8;

class Fnv1a {
 public:
  void Add(std::uint8_t byte) { state_ = (state_ ^ byte) * 0x100000001b3ULL; }
  void Add(std::string_view bytes) {
    for (const char byte : bytes) Add(static_cast<std::uint8_t>(byte));
    Add(std::uint8_t{0});
  }
  std::uint64_t value() const { return state_; }

 private:
  std::uint64_t state_ = 0xcbf29ce484222325ULL;
};

template <typename T>
void Append(T value, std::string& out) {
  const auto bits = static_cast<std::make_unsigned_t<T>>(value);
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    out.push_back(static_cast<char>(static_cast<std::uint8_t>(bits >> (8 * i))));
  }
}

// Precondition: `in` holds at least sizeof(T) bytes; they are taken off.
template <typename T>
T Take(std::string_view& in) {
  std::make_unsigned_t<T> bits = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    bits |= static_cast<std::make_unsigned_t<T>>(static_cast<std::uint8_t>(in[i])) << (8 * i);
  }
  in.remove_prefix(sizeof(T));
  return static_cast<T>(bits);
}

}  // namespace

std::uint64_t HashPrompt(std::span<const std::int32_t> prompt) {
  Fnv1a hash;
  for (const std::int32_t token : prompt) {
    const auto bits = static_cast<std::uint32_t>(token);
    for (int shift = 0; shift < 32; shift += 8) hash.Add(static_cast<std::uint8_t>(bits >> shift));
  }
  return hash.value();
}

std::uint64_t HashModel(const ModelInfo& model) {
  Fnv1a hash;
  hash.Add(model.digest);
  hash.Add(model.arithmetic);
  return hash.value();
}

std::string Serialize(const Handover& handover) {
  std::string out(kTag);
  out.reserve(kManifestBytes);
  Append(handover.prompt_tokens, out);
  Append(handover.first_token, out);
  Append(handover.sampling_position, out);
  Append(handover.prompt_hash, out);
  Append(handover.model_hash, out);
  return out;
}

absl::StatusOr<Handover> ParseHandover(std::string_view manifest) {
  if (manifest.size() != kManifestBytes || !manifest.starts_with(kTag)) {
    return absl::InvalidArgumentError(
        fmt::format("KV manifest of {} bytes is not a {} manifest of {} bytes", manifest.size(),
                    kTag, kManifestBytes));
  }
  manifest.remove_prefix(kTag.size());
  Handover handover;
  handover.prompt_tokens = Take<std::uint32_t>(manifest);
  handover.first_token = Take<std::int32_t>(manifest);
  handover.sampling_position = Take<std::uint32_t>(manifest);
  handover.prompt_hash = Take<std::uint64_t>(manifest);
  handover.model_hash = Take<std::uint64_t>(manifest);
  return handover;
}

absl::Status VerifyHandover(const Handover& received, std::span<const std::int32_t> prompt,
                            const ModelInfo& model) {
  if (received.prompt_tokens != prompt.size()) {
    return absl::FailedPreconditionError(
        fmt::format("KV manifest: prompt of {} tokens, this rank was told {}",
                    received.prompt_tokens, prompt.size()));
  }
  if (received.sampling_position != prompt.size()) {
    return absl::FailedPreconditionError(
        fmt::format("KV manifest: first token at position {}, expected {}",
                    received.sampling_position, prompt.size()));
  }
  if (received.prompt_hash != HashPrompt(prompt)) {
    return absl::FailedPreconditionError("KV manifest: another prompt of the same length");
  }
  if (received.model_hash != HashModel(model)) {
    return absl::FailedPreconditionError("KV manifest: another checkpoint or arithmetic");
  }
  if (received.first_token < 0 ||
      static_cast<std::uint32_t>(received.first_token) >= model.vocabulary_size) {
    return absl::FailedPreconditionError(
        fmt::format("KV manifest: first token {} is not in the vocabulary of {}",
                    received.first_token, model.vocabulary_size));
  }
  return absl::OkStatus();
}

}  // namespace baleen::worker
