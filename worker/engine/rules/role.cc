#include "worker/engine/rules/role.h"

#include <array>
#include <cstddef>

namespace baleen::worker {
namespace {

constexpr std::array<std::string_view, 3> kRoleNames = {"prefill", "decode", "mixed"};
constexpr std::array<std::string_view, 3> kLegNames = {"whole", "prefill", "decode"};

}  // namespace

std::string_view NameOf(Role role) { return kRoleNames.at(static_cast<std::size_t>(role)); }
std::string_view NameOf(Leg leg) { return kLegNames.at(static_cast<std::size_t>(leg)); }

std::optional<Role> ParseRole(std::string_view name) {
  for (std::size_t i = 0; i < kRoleNames.size(); ++i) {
    if (kRoleNames[i] == name) return static_cast<Role>(i);
  }
  return std::nullopt;
}

bool Takes(Role role, Leg leg) {
  switch (role) {
    case Role::kPrefill:
      return leg == Leg::kPrefill;
    case Role::kDecode:
      return leg == Leg::kDecode;
    case Role::kMixed:
      return true;
  }
  return false;
}

}  // namespace baleen::worker
