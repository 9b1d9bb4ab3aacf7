#include "worker/expert_parallel/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "observability/base/check.h"

namespace baleen::worker {
namespace {

// Something to be put on a rank or a node.
struct Item {
  double load = 0;
  std::int32_t expert = 0;  // two of one expert are kept apart where there is room
};

// Longest processing time first: each item, the heaviest first, goes to the pack with the least
// load that has room, `capacity` items in each. Returns the items of each pack, in the order of
// their arrival.
std::vector<std::vector<std::size_t>> Pack(std::span<const Item> items, std::size_t packs,
                                           std::size_t capacity) {
  std::vector<std::size_t> order(items.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](auto a, auto b) { return items[a].load > items[b].load; });
  std::vector<std::vector<std::size_t>> content(packs);
  std::vector<double> load(packs, 0);
  for (const std::size_t item : order) {
    const auto holds_it = [&](std::size_t pack) {
      return std::ranges::any_of(content[pack], [&](std::size_t other) {
        return items[other].expert == items[item].expert;
      });
    };
    std::size_t best = packs;
    bool best_holds = true;
    for (std::size_t pack = 0; pack < packs; ++pack) {
      if (content[pack].size() == capacity) continue;
      const bool holds = holds_it(pack);
      if (best == packs || (best_holds && !holds) ||
          (best_holds == holds && load[pack] < load[best])) {
        best = pack;
        best_holds = holds;
      }
    }
    BALEEN_CHECK(best < packs, "packs have room for all items");
    content[best].push_back(item);
    load[best] += items[item].load;
  }
  return content;
}

// One item for each of `slots` replicas of `experts`, each with its share of its expert's load.
std::vector<Item> Replicate(std::span<const std::int32_t> experts, std::span<const double> load,
                            std::size_t slots) {
  std::vector<std::int32_t> replicas(experts.size(), 1);
  const auto share = [&](std::size_t i) { return load[experts[i]] / replicas[i]; };
  for (std::size_t slot = experts.size(); slot < slots; ++slot) {
    std::size_t busiest = 0;
    for (std::size_t i = 1; i < experts.size(); ++i) {
      // Without any load the replicas go round.
      if (share(i) > share(busiest) ||
          (share(i) == share(busiest) && replicas[i] < replicas[busiest])) {
        busiest = i;
      }
    }
    ++replicas[busiest];
  }
  std::vector<Item> items;
  for (std::size_t i = 0; i < experts.size(); ++i) {
    items.insert(items.end(), replicas[i], {.load = share(i), .expert = experts[i]});
  }
  return items;
}

// The experts of each node: whole expert groups, packed by their load.
std::vector<std::vector<std::int32_t>> ExpertsOfNodes(const PlacementShape& shape,
                                                      std::span<const double> load) {
  const std::int32_t group_size = shape.experts / shape.expert_groups;
  std::vector<Item> groups(shape.expert_groups);
  for (std::int32_t expert = 0; expert < shape.experts; ++expert) {
    Item& group = groups[expert / group_size];
    group.expert = expert / group_size;
    group.load += load[expert];
  }
  std::vector<std::vector<std::int32_t>> experts;
  for (const auto& node : Pack(groups, shape.nodes, shape.expert_groups / shape.nodes)) {
    experts.emplace_back();
    for (const std::size_t group : node) {
      for (std::int32_t i = 0; i < group_size; ++i) {
        experts.back().push_back(static_cast<std::int32_t>(group) * group_size + i);
      }
    }
    std::ranges::sort(experts.back());
  }
  return experts;
}

absl::Status OutOfRange(const char* what, std::int32_t value, std::int32_t least,
                        std::int32_t most) {
  return absl::InvalidArgumentError(
      fmt::format("expert placement: {} is {}, not {} to {}", what, value, least, most));
}

absl::Status DoesNotDivide(const char* what, std::int32_t number, const char* by,
                           std::int32_t divisor) {
  return absl::InvalidArgumentError(
      fmt::format("expert placement: {} {} do not divide by {} {}", number, what, divisor, by));
}

}  // namespace

absl::Status CheckPlacementShape(const PlacementShape& shape) {
  if (shape.experts < 1 || shape.experts > kExpertsMax) {
    return OutOfRange("the number of experts", shape.experts, 1, kExpertsMax);
  }
  if (shape.ranks < 1 || shape.ranks > kGroupRanksMax) {
    return OutOfRange("the number of ranks", shape.ranks, 1, kGroupRanksMax);
  }
  // An expert more often than once a rank serves nobody.
  const std::int32_t redundant_max = shape.experts * (shape.ranks - 1);
  if (shape.redundant_experts < 0 || shape.redundant_experts > redundant_max) {
    return OutOfRange("the number of redundant experts", shape.redundant_experts, 0, redundant_max);
  }
  if (shape.slots() % shape.ranks != 0) {
    return DoesNotDivide("expert slots", shape.slots(), "ranks", shape.ranks);
  }
  if (shape.nodes < 1 || shape.ranks % shape.nodes != 0) {
    return DoesNotDivide("ranks", shape.ranks, "nodes", shape.nodes);
  }
  if (shape.expert_groups < 1 || shape.experts % shape.expert_groups != 0) {
    return DoesNotDivide("experts", shape.experts, "expert groups", shape.expert_groups);
  }
  return absl::OkStatus();
}

absl::StatusOr<LayerPlacement> LayerPlacement::Make(const PlacementShape& shape,
                                                    std::vector<std::int32_t> expert_of_slot) {
  if (expert_of_slot.size() != static_cast<std::size_t>(shape.slots())) {
    return absl::InvalidArgumentError(fmt::format("expert placement: {} slots, must be {}",
                                                  expert_of_slot.size(), shape.slots()));
  }
  LayerPlacement placement;
  placement.begin_.assign(shape.experts + 1, 0);
  for (std::size_t slot = 0; slot < expert_of_slot.size(); ++slot) {
    const std::int32_t expert = expert_of_slot[slot];
    if (expert < 0 || expert >= shape.experts) {
      return absl::InvalidArgumentError(fmt::format(
          "expert placement: slot {} has expert {}, not 0 to {}", slot, expert, shape.experts - 1));
    }
    ++placement.begin_[expert + 1];
  }
  for (std::int32_t expert = 0; expert < shape.experts; ++expert) {
    if (placement.begin_[expert + 1] == 0) {
      return absl::InvalidArgumentError(
          fmt::format("expert placement: expert {} has no slot", expert));
    }
    placement.begin_[expert + 1] += placement.begin_[expert];
  }
  placement.slots_.resize(expert_of_slot.size());
  std::vector<std::size_t> next(placement.begin_.begin(), placement.begin_.end() - 1);
  for (std::size_t slot = 0; slot < expert_of_slot.size(); ++slot) {
    placement.slots_[next[expert_of_slot[slot]]++] = static_cast<std::int32_t>(slot);
  }
  placement.expert_of_slot_ = std::move(expert_of_slot);
  return placement;
}

LayerPlacement ContiguousPlacement(const PlacementShape& shape) {
  if (shape.redundant_experts > 0) {
    return BalancedPlacement(shape, std::vector<double>(shape.experts, 1.0));
  }
  std::vector<std::int32_t> expert_of_slot(shape.experts);
  std::iota(expert_of_slot.begin(), expert_of_slot.end(), 0);
  return LayerPlacement::Make(shape, std::move(expert_of_slot)).value();
}

LayerPlacement BalancedPlacement(const PlacementShape& shape, std::span<const double> load) {
  BALEEN_CHECK(load.size() == static_cast<std::size_t>(shape.experts), "a load for each expert");
  PlacementShape used = shape;
  if (shape.expert_groups % shape.nodes != 0) {  // groups do not fit nodes: one large node
    used.nodes = 1;
    used.expert_groups = 1;
  }
  const std::size_t ranks_per_node = used.ranks / used.nodes;
  const std::size_t slots_per_rank = used.slots_per_rank();
  std::vector<std::int32_t> expert_of_slot;
  for (const std::vector<std::int32_t>& experts : ExpertsOfNodes(used, load)) {
    const std::vector<Item> items = Replicate(experts, load, ranks_per_node * slots_per_rank);
    for (const auto& rank : Pack(items, ranks_per_node, slots_per_rank)) {
      const std::size_t first = expert_of_slot.size();
      for (const std::size_t item : rank) expert_of_slot.push_back(items[item].expert);
      std::sort(expert_of_slot.begin() + static_cast<std::ptrdiff_t>(first), expert_of_slot.end());
    }
  }
  return LayerPlacement::Make(shape, std::move(expert_of_slot)).value();
}

double Imbalance(const PlacementShape& shape, const LayerPlacement& placement,
                 std::span<const double> load) {
  const double total = std::accumulate(load.begin(), load.end(), 0.0);
  if (total <= 0) return 1;
  std::vector<double> rank_load(shape.ranks, 0);
  for (std::int32_t slot = 0; slot < shape.slots(); ++slot) {
    const std::int32_t expert = placement.expert_of_slot()[slot];
    rank_load[slot / shape.slots_per_rank()] +=
        load[expert] / static_cast<double>(placement.SlotsOf(expert).size());
  }
  return *std::ranges::max_element(rank_load) * shape.ranks / total;
}

std::uint32_t ReplicaFor(std::uint64_t request, std::uint32_t position, std::int32_t expert,
                         std::uint32_t replicas) {
  // The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
  // generators", 2014), twice: each bit of the arguments reaches each bit of the choice.
  const auto mix = [](std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  };
  const std::uint64_t place = (std::uint64_t{position} << 32) | static_cast<std::uint32_t>(expert);
  const std::uint64_t mixed = mix(mix(request + 0x9E3779B97F4A7C15u) ^ place);
  return static_cast<std::uint32_t>(((mixed >> 32) * replicas) >> 32);
}

}  // namespace baleen::worker
