#include "worker/group/messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

absl::Status CheckText(std::string_view what, std::string_view text, std::size_t bytes_max) {
  if (text.empty() || text.size() > bytes_max) {
    return absl::InvalidArgumentError(
        fmt::format("{} has {} bytes, not 1 to {}", what, text.size(), bytes_max));
  }
  // It goes into messages and logs of others.
  if (std::ranges::any_of(text, [](unsigned char c) { return c < 0x20 || c >= 0x7f; })) {
    return absl::InvalidArgumentError(
        fmt::format("{} has bytes that are not printable ASCII", what));
  }
  return absl::OkStatus();
}

const GroupFact* Find(const GroupTerms& terms, std::string_view name) {
  const auto it = std::ranges::find(terms.facts, name, &GroupFact::name);
  return it == terms.facts.end() ? nullptr : &*it;
}

absl::Status Differs(const GroupTerms& group, std::uint32_t rank, std::string_view what,
                     std::string_view of_rank, std::string_view of_group) {
  return absl::FailedPreconditionError(fmt::format("group {}: rank {} has {} {}, the group {}",
                                                   group.group, rank, what, of_rank, of_group));
}

absl::Status CompareText(const GroupTerms& group, std::uint32_t rank, std::string_view what,
                         const std::string* of_rank, const std::string* of_group) {
  if (of_rank != nullptr && of_group != nullptr && *of_rank == *of_group) return absl::OkStatus();
  const auto shown = [](const std::string* text) {
    return text == nullptr ? std::string("none") : fmt::format("'{}'", *text);
  };
  return Differs(group, rank, what, shown(of_rank), shown(of_group));
}

}  // namespace

absl::Status CheckGroupTerms(const GroupTerms& terms) {
  BALEEN_RETURN_IF_ERROR(CheckText("the group's name", terms.group, kGroupNameBytesMax));
  if (terms.ranks < 1 || terms.ranks > kGroupRanksMax) {
    return absl::InvalidArgumentError(fmt::format("group {}: {} ranks, must be 1 to {}",
                                                  terms.group, terms.ranks, kGroupRanksMax));
  }
  BALEEN_RETURN_IF_ERROR(
      CheckText("the model digest", terms.model_digest, kGroupFactValueBytesMax));
  BALEEN_RETURN_IF_ERROR(CheckText("the build", terms.build, kGroupFactValueBytesMax));
  if (terms.facts.size() > kGroupFactsMax) {
    return absl::InvalidArgumentError(fmt::format("group {}: {} facts, the most are {}",
                                                  terms.group, terms.facts.size(), kGroupFactsMax));
  }
  for (const GroupFact& fact : terms.facts) {
    BALEEN_RETURN_IF_ERROR(CheckText("the name of a fact", fact.name, kGroupFactNameBytesMax));
    BALEEN_RETURN_IF_ERROR(
        CheckText(fmt::format("fact {}", fact.name), fact.value, kGroupFactValueBytesMax));
    if (Find(terms, fact.name) != &fact) {
      return absl::InvalidArgumentError(fmt::format("fact {} is there twice", fact.name));
    }
  }
  return absl::OkStatus();
}

absl::Status CompareGroupTerms(const GroupTerms& group, std::uint32_t rank,
                               const GroupTerms& of_rank) {
  BALEEN_RETURN_IF_ERROR(CompareText(group, rank, "the group name", &of_rank.group, &group.group));
  if (of_rank.ranks != group.ranks) {
    return Differs(group, rank, "a number of ranks of", std::to_string(of_rank.ranks),
                   std::to_string(group.ranks));
  }
  BALEEN_RETURN_IF_ERROR(
      CompareText(group, rank, "the model digest", &of_rank.model_digest, &group.model_digest));
  BALEEN_RETURN_IF_ERROR(CompareText(group, rank, "the build", &of_rank.build, &group.build));
  const auto value = [](const GroupFact* fact) { return fact == nullptr ? nullptr : &fact->value; };
  for (const GroupFact& fact : group.facts) {
    BALEEN_RETURN_IF_ERROR(
        CompareText(group, rank, fact.name, value(Find(of_rank, fact.name)), &fact.value));
  }
  for (const GroupFact& fact : of_rank.facts) {
    BALEEN_RETURN_IF_ERROR(
        CompareText(group, rank, fact.name, &fact.value, value(Find(group, fact.name))));
  }
  return absl::OkStatus();
}

absl::Status CheckGroupPlacement(const GroupPlacement& placement) {
  BALEEN_RETURN_IF_ERROR(CheckPlacementShape(placement.shape));
  const std::size_t layers = placement.layers.size();
  if (layers < 1 || layers > kMoeLayersMax) {
    return absl::InvalidArgumentError(
        fmt::format("expert placement: {} layers, must be 1 to {}", layers, kMoeLayersMax));
  }
  const std::size_t slots = static_cast<std::size_t>(placement.shape.slots());
  if (layers * slots > kPlacementSlotsMax) {
    return absl::InvalidArgumentError(
        fmt::format("expert placement: {} layers of {} slots, the most slots are {}", layers, slots,
                    kPlacementSlotsMax));
  }
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const std::size_t of_layer = placement.layers[layer].expert_of_slot().size();
    if (of_layer != slots) {
      return absl::InvalidArgumentError(fmt::format(
          "expert placement: layer {} has {} slots, must be {}", layer, of_layer, slots));
    }
  }
  return absl::OkStatus();
}

}  // namespace baleen::worker
