#include "worker/attach/wire.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "proto/contract/limits.h"
#include "proto/contract/status.h"

namespace baleen::worker::wire {
namespace {

using contract::MakeStatus;
using contract::Reason;

// Faster heartbeats would be a load of their own, slower ones would outlast any lease.
constexpr std::uint32_t kHeartbeatMsMin = 10;
constexpr std::uint32_t kHeartbeatMsMax = 10'000;

constexpr std::size_t kBlockHashBytes = sizeof(contract::BlockHash);
static_assert(kBlockHashBytes == 16, "as baleen.v1.Start says");

v1::Role ToWire(Role role) {
  switch (role) {
    case Role::kPrefill:
      return v1::ROLE_PREFILL;
    case Role::kDecode:
      return v1::ROLE_DECODE;
    case Role::kMixed:
      return v1::ROLE_MIXED;
  }
  return v1::ROLE_UNSPECIFIED;
}

v1::EndReason ToWire(EndReason reason) {
  switch (reason) {
    case EndReason::kStop:
      return v1::END_REASON_STOP;
    case EndReason::kLength:
      return v1::END_REASON_LENGTH;
    case EndReason::kHandedOver:
      return v1::END_REASON_HANDED_OVER;
    case EndReason::kCancelled:
      return v1::END_REASON_CANCELLED;
    case EndReason::kError:
      return v1::END_REASON_ERROR;
  }
  return v1::END_REASON_UNSPECIFIED;
}

absl::StatusOr<Leg> ToLeg(v1::Leg leg) {
  switch (leg) {
    case v1::LEG_WHOLE:
      return Leg::kWhole;
    case v1::LEG_PREFILL:
      return Leg::kPrefill;
    case v1::LEG_DECODE:
      return Leg::kDecode;
    default:
      return MakeStatus(Reason::kInvalidRequest,
                        fmt::format("leg {} is not known to this worker", static_cast<int>(leg)));
  }
}

void Fill(const contract::RequestKey& key, v1::RequestKey* out) {
  out->set_router(key.id.router);
  out->set_number(key.id.number);
  out->set_attempt(key.attempt);
}

void Fill(const LoadReport& load, v1::LoadReport* out) {
  out->set_sequences_running(load.sequences_running);
  out->set_sequences_waiting(load.sequences_waiting);
  out->set_prompt_tokens_pending(load.prompt_tokens_pending);
  out->set_context_tokens_held(load.context_tokens_held);
  out->set_kv_blocks_used(load.kv_blocks_used);
  out->set_draining(load.draining);
  out->set_forming(load.forming);
  out->set_kv_blocks_cached(load.kv_blocks_cached);
  out->set_prompt_tokens_per_second(load.prompt_tokens_per_second);
}

void Fill(const ModelInfo& model, v1::ModelIdentity* out) {
  out->set_name(model.name);
  out->set_digest(model.digest);
  out->set_context_tokens(model.context_tokens);
  out->set_vocabulary_size(model.vocabulary_size);
  for (const std::int32_t id : model.eos_token_ids) out->add_eos_token_ids(id);
  out->set_kv_block_bytes(model.kv_block_bytes);
  out->set_arithmetic(model.arithmetic);
}

using Top = std::vector<std::pair<std::int32_t, float>>;

void Fill(float logprob, const Top& top, v1::Logprobs* out) {
  out->set_present(true);
  out->set_sampled(logprob);
  for (const auto& [id, top_logprob] : top) {
    out->add_top_token_ids(id);
    out->add_top_logprobs(top_logprob);
  }
}

absl::Status TooMany(std::string_view field, std::size_t count, std::size_t limit) {
  return MakeStatus(Reason::kInvalidRequest,
                    fmt::format("{} of {} entries, limit {}", field, count, limit));
}

// Counts and sizes, before anything is copied; values are the engine's business.
absl::Status CheckCounts(const v1::Start& start) {
  const auto prompt_tokens = static_cast<std::size_t>(start.prompt_token_ids_size());
  if (prompt_tokens > contract::kContextTokensMax) {
    return MakeStatus(Reason::kPromptTooLong,
                      fmt::format("prompt of {} tokens is longer than any context, {}",
                                  prompt_tokens, contract::kContextTokensMax));
  }
  if (start.peer_data_plane_address().size() > contract::kDataPlaneAddressBytesMax) {
    return MakeStatus(
        Reason::kInvalidRequest,
        fmt::format("peer data-plane address of {} bytes is longer than {}",
                    start.peer_data_plane_address().size(), contract::kDataPlaneAddressBytesMax));
  }
  const auto stops = static_cast<std::size_t>(start.stop_token_ids_size());
  if (stops > contract::kStopTokenIdsMax) {
    return TooMany("stop_token_ids", stops, contract::kStopTokenIdsMax);
  }
  const auto biases = static_cast<std::size_t>(start.sampling().biases_size());
  const auto bias_ids = static_cast<std::size_t>(start.sampling().bias_token_ids_size());
  if (biases > contract::kLogitBiasesMax) {
    return TooMany("biases", biases, contract::kLogitBiasesMax);
  }
  if (bias_ids != biases) {
    return MakeStatus(Reason::kInvalidRequest,
                      fmt::format("{} bias_token_ids and {} biases", bias_ids, biases));
  }
  const std::size_t hash_bytes = start.block_hashes().size();
  const std::size_t hashes_bytes = prompt_tokens / contract::kBlockTokens * kBlockHashBytes;
  if (hash_bytes != 0 && hash_bytes != hashes_bytes) {
    return MakeStatus(Reason::kInvalidRequest,
                      fmt::format("block_hashes of {} bytes for a prompt of {} tokens, not {}",
                                  hash_bytes, prompt_tokens, hashes_bytes));
  }
  return absl::OkStatus();
}

SampleSpec ToSampling(const v1::Sampling& sampling) {
  SampleSpec spec{.temperature = sampling.temperature(),
                  .top_k = sampling.top_k(),
                  .top_p = sampling.top_p(),
                  .seed = sampling.seed(),
                  .logprobs = sampling.logprobs(),
                  .min_p = sampling.min_p(),
                  .frequency_penalty = sampling.frequency_penalty(),
                  .presence_penalty = sampling.presence_penalty()};
  if (sampling.has_repetition_penalty()) spec.repetition_penalty = sampling.repetition_penalty();
  spec.biases.reserve(static_cast<std::size_t>(sampling.biases_size()));
  for (int i = 0; i < sampling.biases_size(); ++i) {
    spec.biases.push_back({.token = sampling.bias_token_ids(i), .bias = sampling.biases(i)});
  }
  return spec;
}

absl::StatusOr<GrammarSpec> ToGrammar(v1::Grammar& grammar) {
  GrammarSpec spec;
  switch (grammar.source_case()) {
    case v1::Grammar::kJsonSchema:
      spec.source = {text::GrammarKind::kJsonSchema, std::move(*grammar.mutable_json_schema())};
      break;
    case v1::Grammar::kRegex:
      spec.source = {text::GrammarKind::kRegex, std::move(*grammar.mutable_regex())};
      break;
    case v1::Grammar::kLark:
      spec.source = {text::GrammarKind::kLark, std::move(*grammar.mutable_lark())};
      break;
    case v1::Grammar::SOURCE_NOT_SET:
      return MakeStatus(Reason::kInvalidRequest,
                        "grammar of a kind that this worker does not know");
  }
  const std::size_t bytes = spec.source.text.size();
  if (bytes > contract::kGrammarBytesMax) {
    return MakeStatus(Reason::kInvalidRequest, fmt::format("grammar of {} bytes, limit {}", bytes,
                                                           contract::kGrammarBytesMax));
  }
  if (grammar.has_after_token()) spec.after_token = grammar.after_token();
  return spec;
}

std::vector<contract::BlockHash> ToHashes(const std::string& bytes) {
  std::vector<contract::BlockHash> hashes(bytes.size() / kBlockHashBytes);
  if (!bytes.empty()) std::memcpy(hashes.data(), bytes.data(), hashes.size() * kBlockHashBytes);
  return hashes;
}

}  // namespace

v1::WorkerMessage HelloMessage(const WorkerIdentity& identity) {
  v1::WorkerMessage message;
  v1::Hello& hello = *message.mutable_hello();
  hello.set_protocol_version(contract::kProtocolVersion);
  hello.set_worker(identity.name);
  hello.set_incarnation(identity.incarnation);
  hello.set_role(ToWire(identity.role));
  hello.set_group(identity.group);
  hello.set_rank(identity.rank);
  Fill(identity.model, hello.mutable_model());
  hello.set_kv_blocks_total(identity.kv_blocks_total);
  hello.set_sequences_max(identity.sequences_max);
  hello.set_step_tokens_max(identity.step_tokens_max);
  hello.set_data_plane_address(identity.data_plane_address);
  hello.set_metrics_address(identity.metrics_address);
  hello.set_model_directory(identity.model_directory);
  return message;
}

v1::WorkerMessage LoadMessage(const LoadReport& load) {
  v1::WorkerMessage message;
  Fill(load, message.mutable_load());
  return message;
}

v1::WorkerMessage StepMessage(const StepReport& report) {
  v1::WorkerMessage message;
  v1::StepOutput& step = *message.mutable_step();
  step.set_step(report.step);
  const bool with_logprobs =
      std::any_of(report.tokens.begin(), report.tokens.end(),
                  [](const TokenOutput& token) { return token.with_logprobs; });
  for (const TokenOutput& token : report.tokens) {
    Fill(token.key, step.add_keys());
    step.add_sequence(token.sequence);
    step.add_token_ids(token.token.token);
    if (!with_logprobs) continue;
    v1::Logprobs* logprobs = step.add_logprobs();
    if (token.with_logprobs) Fill(token.token.logprob, token.token.top, logprobs);
  }
  Fill(report.load, step.mutable_load());
  return message;
}

std::vector<v1::WorkerMessage> PromptLogprobsMessages(const PromptLogprobsOutput& output) {
  std::vector<v1::WorkerMessage> messages;
  for (std::size_t i = 0; i < output.entries.size(); ++i) {
    if (i % contract::kPromptLogprobsPerMessage == 0) {
      v1::PromptLogprobs& head = *messages.emplace_back().mutable_prompt_logprobs();
      Fill(output.key, head.mutable_key());
      head.set_first(output.first + static_cast<std::uint32_t>(i));
    }
    v1::Logprobs* entry = messages.back().mutable_prompt_logprobs()->add_logprobs();
    const std::optional<TokenLogprobs>& value = output.entries[i];
    if (value.has_value()) Fill(value->logprob, value->top, entry);
  }
  return messages;
}

v1::WorkerMessage EndedMessage(const EndedOutput& ended) {
  v1::WorkerMessage message;
  v1::Ended& out = *message.mutable_ended();
  Fill(ended.key, out.mutable_key());
  out.set_reason(ToWire(ended.reason));
  out.set_tokens(ended.tokens);
  if (ended.reason == EndReason::kError) {
    out.set_code(static_cast<int>(ended.status.code()));
    out.set_message(std::string(ended.status.message()));
  }
  out.set_kv_transfer_bytes(ended.kv_transfer_bytes);
  out.set_cached_tokens(ended.cached_tokens);
  return message;
}

v1::WorkerMessage CacheMessage(const CacheChanges& changes) {
  const auto append = [](const std::vector<contract::BlockHash>& hashes, std::string* out) {
    out->assign(reinterpret_cast<const char*>(hashes.data()), hashes.size() * kBlockHashBytes);
  };
  v1::WorkerMessage message;
  v1::CacheEvents& events = *message.mutable_cache_events();
  events.set_cleared(changes.cleared);
  append(changes.stored, events.mutable_stored());
  append(changes.evicted, events.mutable_evicted());
  return message;
}

contract::RequestKey KeyOf(const v1::RequestKey& key) {
  return {.id = {.router = key.router(), .number = key.number()}, .attempt = key.attempt()};
}

absl::StatusOr<StartCommand> ToStart(v1::Start& start, LinkId link) {
  StartCommand command{.link = link, .key = KeyOf(start.key())};
  if (command.key.id.number == 0 || command.key.attempt == 0) {
    return MakeStatus(Reason::kInvalidRequest, "request number and attempt count from 1");
  }
  absl::StatusOr<Leg> leg = ToLeg(start.leg());
  if (!leg.ok()) return leg.status();
  command.leg = *leg;
  if (absl::Status status = CheckCounts(start); !status.ok()) return status;
  if (start.has_grammar()) {
    absl::StatusOr<GrammarSpec> grammar = ToGrammar(*start.mutable_grammar());
    if (!grammar.ok()) return grammar.status();
    command.grammar = *std::move(grammar);
  }
  command.prompt.assign(start.prompt_token_ids().begin(), start.prompt_token_ids().end());
  command.sampling = ToSampling(start.sampling());
  command.stop_token_ids.assign(start.stop_token_ids().begin(), start.stop_token_ids().end());
  command.tokens_min = start.tokens_min();
  if (start.has_prompt_logprobs()) command.prompt_logprobs = start.prompt_logprobs();
  command.block_hashes = ToHashes(start.block_hashes());
  command.tokens_max = start.tokens_max();
  command.ignore_eos = start.ignore_eos();
  if (start.deadline_ms() > 0) command.time_left = absl::Milliseconds(start.deadline_ms());
  command.transfer = {.value = start.transfer()};
  command.peer_address = std::move(*start.mutable_peer_data_plane_address());
  return command;
}

absl::StatusOr<WelcomeTerms> ToTerms(const v1::Welcome& welcome) {
  if (welcome.router() == 0) {
    return absl::InvalidArgumentError("the router's Welcome carries no router number");
  }
  const std::uint32_t heartbeat_ms =
      std::clamp(welcome.heartbeat_ms(), kHeartbeatMsMin, kHeartbeatMsMax);
  return WelcomeTerms{.router = welcome.router(), .heartbeat = absl::Milliseconds(heartbeat_ms)};
}

}  // namespace baleen::worker::wire
