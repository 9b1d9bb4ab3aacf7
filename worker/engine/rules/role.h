// Roles are data: what a rank may be asked to do, nothing else.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "worker/engine/messages.h"

namespace baleen::worker {

enum class Role : std::uint8_t { kPrefill, kDecode, kMixed };

// "prefill", "decode", "mixed": in flags, worker names and errors.
std::string_view NameOf(Role role);
std::optional<Role> ParseRole(std::string_view name);

std::string_view NameOf(Leg leg);

// A prefill rank takes prefill legs, a decode rank decode legs, a mixed rank takes all three.
bool Takes(Role role, Leg leg);

}  // namespace baleen::worker
