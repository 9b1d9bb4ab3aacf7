// The fields of a request that say how tokens are chosen and when the reply stops.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "proto/baleen/v1/inference.pb.h"
#include "router/server/request/request.h"

namespace baleen::router {

// With a seed, drawn if none is given.
absl::StatusOr<Sampling> ReadSampling(const v1::SamplingParams& params);

absl::StatusOr<StopRules> ReadStop(v1::StopParams params);

// `field` is for the error; unset = none (-1).
absl::StatusOr<std::int32_t> ReadLogprobs(std::string_view field,
                                          std::optional<std::uint32_t> count);

}  // namespace baleen::router
