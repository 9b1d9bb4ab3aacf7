#include "router/cluster/wire.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "proto/contract/limits.h"

namespace baleen::router {
namespace {

// Of the text of an error that a worker reports; the rest is cut off.
constexpr std::size_t kErrorBytesMax = 512;

contract::RequestKey KeyFromWire(const v1::RequestKey& key) {
  return {{key.router(), key.number()}, key.attempt()};
}

void KeyToWire(const contract::RequestKey& key, v1::RequestKey& out) {
  out.set_router(key.id.router);
  out.set_number(key.id.number);
  out.set_attempt(key.attempt);
}

constexpr std::size_t kHashBytes = sizeof(contract::BlockHash);
static_assert(kHashBytes == 16);

BlockHashes HashesFromWire(const std::string& bytes) {
  BlockHashes hashes(bytes.size() / kHashBytes);
  if (!hashes.empty()) std::memcpy(hashes.data(), bytes.data(), hashes.size() * kHashBytes);
  return hashes;
}

bool InVocabulary(std::int32_t id, const WorkerInfo& from) {
  return id >= 0 && static_cast<std::uint32_t>(id) < from.model.vocabulary_size;
}

absl::StatusOr<TokenLogprobs> LogprobsFromWire(const v1::Logprobs& wire, const WorkerInfo& from) {
  const int count = wire.top_token_ids_size();
  if (count != wire.top_logprobs_size() ||
      static_cast<std::uint32_t>(count) > contract::kLogprobsMax) {
    return absl::InvalidArgumentError(
        fmt::format("{} ids and {} log-probabilities of one token, limit {} of each", count,
                    wire.top_logprobs_size(), contract::kLogprobsMax));
  }
  TokenLogprobs result{.sampled = wire.sampled()};
  bool finite = std::isfinite(wire.sampled());
  result.top.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    const std::int32_t id = wire.top_token_ids(i);
    if (!InVocabulary(id, from)) {
      return absl::InvalidArgumentError(fmt::format("log-probability of token {}, vocabulary {}",
                                                    id, from.model.vocabulary_size));
    }
    // A token outside of the float range has probability 0.
    finite = finite && !std::isnan(wire.top_logprobs(i));
    result.top.emplace_back(id, wire.top_logprobs(i));
  }
  if (!finite) return absl::InvalidArgumentError("a log-probability is not a number");
  return result;
}

absl::Status CheckLists(const v1::StepOutput& step, const WorkerInfo& from) {
  const int entries = step.keys_size();
  const bool logprobs_fit = step.logprobs_size() == 0 || step.logprobs_size() == entries;
  if (step.sequence_size() != entries || step.token_ids_size() != entries || !logprobs_fit) {
    return absl::InvalidArgumentError(
        fmt::format("step: lists of {} keys, {} sequences, {} tokens and {} log-probabilities",
                    entries, step.sequence_size(), step.token_ids_size(), step.logprobs_size()));
  }
  if (static_cast<std::uint32_t>(entries) > from.sequences_max) {
    return absl::InvalidArgumentError(
        fmt::format("step: {} entries, sequences_max {}", entries, from.sequences_max));
  }
  return absl::OkStatus();
}

// Only printable ASCII: the text goes to logs and clients.
std::string Printable(const std::string& text) {
  std::string result = text.substr(0, kErrorBytesMax);
  std::ranges::replace_if(
      result, [](char c) { return c < ' ' || c > '~'; }, '?');
  return result;
}

absl::StatusOr<EndReason> ReasonFromWire(v1::EndReason reason) {
  switch (reason) {
    case v1::END_REASON_STOP:
      return EndReason::kStop;
    case v1::END_REASON_LENGTH:
      return EndReason::kLength;
    case v1::END_REASON_HANDED_OVER:
      return EndReason::kHandedOver;
    case v1::END_REASON_CANCELLED:
      return EndReason::kCancelled;
    case v1::END_REASON_ERROR:
      return EndReason::kError;
    default:
      return absl::InvalidArgumentError(
          fmt::format("ended: reason {} does not exist", static_cast<int>(reason)));
  }
}

v1::Leg LegToWire(Leg leg) {
  switch (leg) {
    case Leg::kWhole:
      return v1::LEG_WHOLE;
    case Leg::kPrefill:
      return v1::LEG_PREFILL;
    case Leg::kDecode:
      return v1::LEG_DECODE;
  }
  return v1::LEG_UNSPECIFIED;
}

// 0 means none on the wire: less than a millisecond left is one.
std::uint32_t DeadlineToWire(absl::Duration time_left) {
  if (time_left == absl::InfiniteDuration()) return 0;
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(
      absl::ToInt64Milliseconds(time_left), 1, std::numeric_limits<std::uint32_t>::max()));
}

void SamplingToWire(const Sampling& sampling, v1::Sampling& out) {
  out.set_temperature(sampling.temperature);
  out.set_top_k(sampling.top_k);
  out.set_top_p(sampling.top_p);
  out.set_seed(sampling.seed);
  out.set_logprobs(sampling.logprobs);
  out.set_min_p(sampling.min_p);
  if (sampling.repetition_penalty != 1.0f) {
    out.set_repetition_penalty(sampling.repetition_penalty);
  }
  out.set_frequency_penalty(sampling.frequency_penalty);
  out.set_presence_penalty(sampling.presence_penalty);
  for (const LogitBias& bias : sampling.biases) {
    out.add_bias_token_ids(bias.token);
    out.add_biases(bias.bias);
  }
}

void GrammarToWire(const GrammarSpec& grammar, v1::Grammar& out) {
  switch (grammar.source.kind) {
    case text::GrammarKind::kJsonSchema:
      out.set_json_schema(grammar.source.text);
      break;
    case text::GrammarKind::kRegex:
      out.set_regex(grammar.source.text);
      break;
    case text::GrammarKind::kLark:
      out.set_lark(grammar.source.text);
      break;
  }
  if (grammar.after_token) out.set_after_token(*grammar.after_token);
}

void BodyToWire(const StartFrame& start, v1::RouterMessage& message) {
  v1::Start& out = *message.mutable_start();
  KeyToWire(start.key, *out.mutable_key());
  out.set_leg(LegToWire(start.leg));
  out.mutable_prompt_token_ids()->Add(start.prompt->begin(), start.prompt->end());
  SamplingToWire(start.sampling, *out.mutable_sampling());
  out.set_tokens_max(start.tokens_max);
  out.set_ignore_eos(start.ignore_eos);
  out.set_deadline_ms(DeadlineToWire(start.time_left));
  out.set_transfer(start.transfer.value);
  out.set_peer_data_plane_address(start.peer_address);
  out.mutable_stop_token_ids()->Add(start.stop_token_ids.begin(), start.stop_token_ids.end());
  out.set_tokens_min(start.tokens_min);
  if (start.prompt_logprobs) out.set_prompt_logprobs(*start.prompt_logprobs);
  if (start.grammar != nullptr) GrammarToWire(*start.grammar, *out.mutable_grammar());
  if (start.block_hashes != nullptr) {
    std::string& bytes = *out.mutable_block_hashes();
    for (const contract::BlockHash& hash : *start.block_hashes) {
      bytes.append(hash.bytes.begin(), hash.bytes.end());
    }
  }
}

void BodyToWire(const CancelFrame& cancel, v1::RouterMessage& message) {
  KeyToWire(cancel.key, *message.mutable_cancel()->mutable_key());
}

void BodyToWire(const ReleaseFrame& release, v1::RouterMessage& message) {
  KeyToWire(release.key, *message.mutable_release()->mutable_key());
}

void BodyToWire(const DrainFrame&, v1::RouterMessage& message) { message.mutable_drain(); }

}  // namespace

absl::StatusOr<WorkerInfo> FromWire(const v1::Hello& hello) {
  WorkerInfo info{.name = hello.worker(),
                  .incarnation = hello.incarnation(),
                  .group = hello.group(),
                  .rank = hello.rank(),
                  .kv_blocks_total = hello.kv_blocks_total(),
                  .sequences_max = hello.sequences_max(),
                  .step_tokens_max = hello.step_tokens_max(),
                  .data_plane_address = hello.data_plane_address(),
                  .metrics_address = hello.metrics_address(),
                  .model_directory = hello.model_directory()};
  switch (hello.role()) {
    case v1::ROLE_PREFILL:
      info.role = Role::kPrefill;
      break;
    case v1::ROLE_DECODE:
      info.role = Role::kDecode;
      break;
    case v1::ROLE_MIXED:
      info.role = Role::kMixed;
      break;
    default:
      return absl::InvalidArgumentError(
          fmt::format("role {} does not exist", static_cast<int>(hello.role())));
  }
  const v1::ModelIdentity& model = hello.model();
  info.model = {.name = model.name(),
                .digest = model.digest(),
                .context_tokens = model.context_tokens(),
                .vocabulary_size = model.vocabulary_size(),
                .eos_token_ids = {model.eos_token_ids().begin(), model.eos_token_ids().end()},
                .kv_block_bytes = model.kv_block_bytes(),
                .arithmetic = model.arithmetic()};
  return info;
}

LoadReport FromWire(const v1::LoadReport& load) {
  const float rate = load.prompt_tokens_per_second();
  return {.sequences_running = load.sequences_running(),
          .sequences_waiting = load.sequences_waiting(),
          .prompt_tokens_pending = load.prompt_tokens_pending(),
          .context_tokens_held = load.context_tokens_held(),
          .kv_blocks_used = load.kv_blocks_used(),
          .draining = load.draining(),
          .forming = load.forming(),
          .kv_blocks_cached = load.kv_blocks_cached(),
          .prompt_tokens_per_second = std::isfinite(rate) ? std::max(rate, 0.0f) : 0.0f};
}

absl::StatusOr<std::vector<TokenFrame>> FromWire(const v1::StepOutput& step,
                                                 const WorkerInfo& from) {
  if (absl::Status status = CheckLists(step, from); !status.ok()) return status;
  std::vector<TokenFrame> tokens;
  tokens.reserve(static_cast<std::size_t>(step.keys_size()));
  for (int i = 0; i < step.keys_size(); ++i) {
    TokenFrame token{.key = KeyFromWire(step.keys(i)),
                     .sequence = step.sequence(i),
                     .token = {.id = step.token_ids(i)}};
    if (!InVocabulary(token.token.id, from)) {
      return absl::InvalidArgumentError(
          fmt::format("step: token {}, vocabulary {}", token.token.id, from.model.vocabulary_size));
    }
    if (step.logprobs_size() > 0 && step.logprobs(i).present()) {
      absl::StatusOr<TokenLogprobs> logprobs = LogprobsFromWire(step.logprobs(i), from);
      if (!logprobs.ok()) return logprobs.status();
      token.token.logprobs = *std::move(logprobs);
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

absl::StatusOr<PromptLogprobsFrame> FromWire(const v1::PromptLogprobs& logprobs,
                                             const WorkerInfo& from) {
  const auto count = static_cast<std::size_t>(logprobs.logprobs_size());
  if (count > contract::kPromptLogprobsPerMessage || logprobs.first() > from.model.context_tokens) {
    return absl::InvalidArgumentError(fmt::format(
        "prompt log-probabilities: {} entries from token {} on, limits {} and {}", count,
        logprobs.first(), contract::kPromptLogprobsPerMessage, from.model.context_tokens));
  }
  PromptLogprobsFrame frame{.key = KeyFromWire(logprobs.key()),
                            .logprobs = {.first = logprobs.first()}};
  frame.logprobs.entries.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const v1::Logprobs& entry = logprobs.logprobs(static_cast<int>(i));
    const bool is_first_token = logprobs.first() + i == 0;
    if (entry.present() == is_first_token) {
      return absl::InvalidArgumentError(
          fmt::format("prompt log-probabilities: token {} has {}", logprobs.first() + i,
                      entry.present() ? "one, though nothing precedes it" : "none"));
    }
    std::optional<TokenLogprobs>& out = frame.logprobs.entries.emplace_back();
    if (!entry.present()) continue;
    absl::StatusOr<TokenLogprobs> values = LogprobsFromWire(entry, from);
    if (!values.ok()) return values.status();
    out = *std::move(values);
  }
  return frame;
}

absl::StatusOr<CacheEventsFrame> FromWire(const v1::CacheEvents& events) {
  const std::size_t bytes = events.stored().size() + events.evicted().size();
  if (bytes > contract::kCacheHashesPerMessage * kHashBytes ||
      events.stored().size() % kHashBytes != 0 || events.evicted().size() % kHashBytes != 0) {
    return absl::InvalidArgumentError(
        fmt::format("cache events: {} and {} bytes; each hash has {}, the most are {} hashes",
                    events.stored().size(), events.evicted().size(), kHashBytes,
                    contract::kCacheHashesPerMessage));
  }
  return CacheEventsFrame{.cleared = events.cleared(),
                          .stored = HashesFromWire(events.stored()),
                          .evicted = HashesFromWire(events.evicted())};
}

absl::StatusOr<EndedFrame> FromWire(const v1::Ended& ended) {
  const absl::StatusOr<EndReason> reason = ReasonFromWire(ended.reason());
  if (!reason.ok()) return reason.status();
  EndedFrame frame{.key = KeyFromWire(ended.key()),
                   .reason = *reason,
                   .tokens = ended.tokens(),
                   .kv_transfer_bytes = ended.kv_transfer_bytes(),
                   .cached_tokens = ended.cached_tokens()};
  if (*reason == EndReason::kError) {
    const int code = ended.code() >= 1 && ended.code() <= 16
                         ? ended.code()
                         : static_cast<int>(absl::StatusCode::kInternal);
    frame.status = absl::Status(static_cast<absl::StatusCode>(code), Printable(ended.message()));
  }
  return frame;
}

v1::RouterMessage ToWire(const WelcomeFrame& welcome) {
  v1::RouterMessage message;
  message.mutable_welcome()->set_router(welcome.router);
  message.mutable_welcome()->set_heartbeat_ms(welcome.heartbeat_ms);
  message.mutable_welcome()->set_lease_ms(welcome.lease_ms);
  return message;
}

v1::RouterMessage ToWire(const RouterFrame& frame) {
  v1::RouterMessage message;
  std::visit([&message](const auto& body) { BodyToWire(body, message); }, frame);
  return message;
}

}  // namespace baleen::router
