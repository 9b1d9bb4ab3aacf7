// Hard limits of the contract. Both sides check them; a process may be started with smaller ones,
// never with larger ones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace baleen::contract {

// Tokens in a block of KV: the unit of allocation, hashing and transfer (DESIGN vocabulary).
inline constexpr std::uint32_t kBlockTokens = 64;

// A gRPC message in either direction, client or worker. A prompt of 160k token ids takes at most 5
// bytes an id = 800 kB.
inline constexpr std::size_t kMessageBytesMax = 4u << 20;

// Chat input. 1 MiB of text is about 300k tokens, twice the largest context of the served models
// (163,840).
inline constexpr std::size_t kMessagesMax = 1024;
inline constexpr std::size_t kPromptTextBytesMax = 1u << 20;
inline constexpr std::uint32_t kContextTokensMax = 163'840;
static_assert(kContextTokensMax * std::size_t{5} < kMessageBytesMax,
              "a full prompt fits a message");

inline constexpr std::uint32_t kCompletionTokensMax = 32'768;
inline constexpr std::uint32_t kCompletionTokensDefault = 4'096;
inline constexpr std::uint32_t kLogprobsMax = 20;

inline constexpr std::uint32_t kChoicesMax = 16;
inline constexpr std::uint32_t kPriorityMax = 9;
inline constexpr std::uint32_t kPriorityDefault = 5;

// When a reply stops.
inline constexpr std::size_t kStopTextsMax = 16;
inline constexpr std::size_t kStopTextBytesMax = 256;
inline constexpr std::size_t kStopTokenIdsMax = 64;

// Tools, formats and grammars: text that is compiled.
inline constexpr std::size_t kToolsMax = 128;
inline constexpr std::size_t kToolNameBytesMax = 64;
inline constexpr std::size_t kToolCallIdBytesMax = 64;
inline constexpr std::size_t kGrammarBytesMax = std::size_t{256} << 10;

inline constexpr std::size_t kLogitBiasesMax = 1024;
inline constexpr float kLogitBiasMax = 100.0f;  // and -100, which bans
inline constexpr float kRepetitionPenaltyMax = 2.0f;
inline constexpr float kPenaltyMax = 2.0f;  // of frequency and presence: -2 to 2

inline constexpr float kTemperatureMin = 0.01f;  // below it, only 0 (greedy)
inline constexpr float kTemperatureMax = 2.0f;

// Names and addresses on the wire.
inline constexpr std::size_t kModelNameBytesMax = 256;
inline constexpr std::size_t kWorkerNameBytesMax = 128;
inline constexpr std::size_t kDataPlaneAddressBytesMax = 4096;

// Messages of prompt log-probabilities and of cache events.
inline constexpr std::size_t kPromptLogprobsPerMessage = 1024;
inline constexpr std::size_t kCacheHashesPerMessage = 65'536;

// Worker liveness, in milliseconds: silence of one lease = suspect (no new requests), of three =
// lost.
inline constexpr std::uint32_t kHeartbeatMs = 250;
inline constexpr std::uint32_t kLeaseMs = 1000;
inline constexpr std::uint32_t kLeasesUntilLost = 3;
static_assert(kLeaseMs >= 3 * kHeartbeatMs, "two lost heartbeats are not yet silence");

inline constexpr std::uint32_t kProtocolVersion = 1;

}  // namespace baleen::contract
