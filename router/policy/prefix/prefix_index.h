// Which ranks hold which KV blocks, and for a prompt, how many blocks from its beginning each rank
// has. Fed by the CacheEvents of workers; a hint for routing only: a wrong entry costs time, never
// correctness, because a rank looks blocks up by itself.
//
// Compact: 8 bytes of a block's hash and 8 bytes for the ranks that hold it: up to five slot
// numbers of 12 bits, or the number of a bit set once there are more. Hashes are keyed with the
// model's digest (proto/contract/block_hash.h), so blocks of different models never meet. A lost
// rank's entries are swept a part at a time, so that no event takes long.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "proto/contract/block_hash.h"

namespace baleen::router {

inline constexpr std::uint32_t kPrefixSlotsMax = 4096;

struct PrefixIndexOptions {
  // Different blocks, 17 bytes each in a table that is at most 7/8 full. Reports of others are
  // dropped.
  std::size_t blocks_max = std::size_t{4} << 20;
  // Blocks that more than five ranks hold, 512 bytes each; of one more, five ranks are known.
  std::size_t shared_blocks_max = std::size_t{32} << 10;
};

// One thread.
class PrefixIndex {
 public:
  using Slot = std::uint32_t;

  explicit PrefixIndex(const PrefixIndexOptions& options = {});

  // A rank comes. At most `blocks_max` blocks of it are kept. nullopt: no slot is free.
  std::optional<Slot> AddRank(std::uint64_t blocks_max);
  // It holds nothing any more, from now on; its slot is free again when it has been swept.
  void RemoveRank(Slot slot);

  // What is there already, or was not, has no effect.
  void Store(Slot slot, std::span<const contract::BlockHash> hashes);
  void Evict(Slot slot, std::span<const contract::BlockHash> hashes);

  // For each slot, how many of `hashes` its rank holds without a gap from the first one on. Valid
  // until the next call; slots beyond its end: 0.
  std::span<std::uint16_t> Match(std::span<const contract::BlockHash> hashes);

  // Sweeps one of kParts parts, if a rank was removed. To be called now and then.
  void Sweep();

  std::size_t blocks() const { return blocks_; }
  // Reports that found no room.
  std::uint64_t dropped_total() const { return dropped_total_; }

 private:
  // Parts grow one at a time: the largest is copied in about a millisecond.
  static constexpr std::size_t kParts = 64;
  static constexpr std::size_t kWords = kPrefixSlotsMax / 64;

  using Key = std::uint64_t;  // the first 8 bytes of a hash
  using SlotSet = std::array<std::uint64_t, kWords>;
  using Slots = std::bitset<kPrefixSlotsMax>;
  // Low 4 bits: how many slots follow, 12 bits each, or kIsSet and then the set's number.
  using Holders = std::uint64_t;
  using Part = absl::flat_hash_map<Key, Holders>;

  static Key KeyOf(const contract::BlockHash& hash);
  Part& PartOf(Key key) { return parts_[key >> 58]; }

  bool Insert(Holders& holders, Slot slot);
  bool Remove(Holders& holders, Slot slot);
  bool RemoveDying(Holders& holders);
  std::optional<std::uint32_t> TakeSet();
  const std::uint64_t* WordsOf(Holders holders, SlotSet& scratch) const;
  std::optional<Slot> FreeSlot() const;

  const PrefixIndexOptions options_;
  std::array<Part, kParts> parts_;
  std::vector<SlotSet> sets_;
  std::vector<std::uint32_t> free_sets_;
  std::size_t blocks_ = 0;
  std::uint64_t dropped_total_ = 0;

  std::vector<std::uint64_t> held_;      // by slot: blocks
  std::vector<std::uint64_t> held_max_;  // by slot
  SlotSet live_ = {};
  Slots used_;   // live, or not swept yet
  Slots dying_;  // removed, not being swept yet
  Slots sweeping_;
  std::size_t next_part_ = 0;  // of the sweep
  std::vector<std::uint16_t> depths_;
};

}  // namespace baleen::router
