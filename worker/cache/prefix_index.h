// Which block holds which piece of which prompt: the names of the cached blocks, and the order in
// which those that nobody holds make room.
//
// Bookkeeping only; BlockPool owns the memory and knows who holds what. A cached block is `idle`
// while nobody holds it. Blocks are the links of chains: a prompt's first 64 tokens, the next 64
// and so on, each named by a hash of all tokens so far (contract::BlockHash); chains that begin
// alike share their beginning. What always holds:
//
//  - The block before a cached one in its chain is cached too, so the longest cached prefix of a
//    prompt is found by halving: a dozen probes for a chain of thousands.
//  - Who holds a cached block holds all before it. So blocks that go idle last first, as BlockPool
//    lets them, make room last first: an end before the beginning that it needs.
//
// Names come from routers and are trusted to be true (SECURITY.md); names that contradict
// themselves find nothing and keep nothing, and do no other harm.
//
// Threading: the engine's thread only.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <unordered_map>
#include <vector>

#include "proto/contract/block_hash.h"

namespace baleen::worker {

class CacheFeed;

// The names of a prompt's first blocks, in order.
using BlockChain = std::span<const contract::BlockHash>;

class PrefixIndex {
 public:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  // For block ids below `blocks`. `feed` (may be null; borrowed) hears of what comes and goes.
  PrefixIndex(std::uint32_t blocks, CacheFeed* feed);

  struct Match {
    std::uint32_t cached = 0;  // leading blocks of the chain that are cached
    std::uint32_t held = 0;    // and those of them that are not idle: leading ones too
  };
  Match Find(BlockChain chain) const;

  // The cached blocks that end with `last`, appended to `ids` in the order of the chain: those from
  // number `from` on. Returns the block before them, kNone when `from` is 0.
  std::uint32_t Walk(std::uint32_t last, std::uint32_t from, std::vector<std::uint32_t>& ids) const;

  // The cached block number `number` of a chain, by its name; kNone without one.
  std::uint32_t At(const contract::BlockHash& hash, std::uint32_t number) const;
  bool IsCached(std::uint32_t block) const { return nodes_[block].cached; }
  // Of a cached block: the one before it, kNone for the first of a chain.
  std::uint32_t Before(std::uint32_t block) const { return nodes_[block].before; }

  // `block`, which is not cached and is held, comes after `before` (cached, held; kNone: first)
  // under a name that no cached block has.
  bool Insert(std::uint32_t block, std::uint32_t before, const contract::BlockHash& hash);

  // A cached block is let go by its last holder, or taken by its first.
  void SetIdle(std::uint32_t block);
  void SetHeld(std::uint32_t block);
  std::uint32_t idle() const { return idle_; }

  // Precondition: idle() > 0. Takes the block out that went idle first.
  std::uint32_t EvictOldest();

  // Takes out every block of all chains that begin with the same block as that of `block`; those
  // that were idle are appended to `idle`. Looks at all blocks.
  void Forget(std::uint32_t block, std::vector<std::uint32_t>& idle);

 private:
  struct Node {
    contract::BlockHash hash;
    std::uint32_t number = 0;      // in its chain
    std::uint32_t before = kNone;  // in its chain
    std::uint32_t first = kNone;   // of its chain
    std::uint32_t older = kNone;   // in the order of going idle
    std::uint32_t younger = kNone;
    bool cached = false;
    bool idle = false;
  };
  // The names are evenly distributed already.
  struct FirstBytes {
    std::size_t operator()(const contract::BlockHash& hash) const {
      std::size_t value = 0;
      std::memcpy(&value, hash.bytes.data(), sizeof(value));
      return value;
    }
  };

  void Remove(std::uint32_t block);

  std::vector<Node> nodes_;  // by block id
  std::unordered_map<contract::BlockHash, std::uint32_t, FirstBytes> by_hash_;
  std::uint32_t oldest_ = kNone;  // idle blocks, as a list through the nodes
  std::uint32_t youngest_ = kNone;
  std::uint32_t idle_ = 0;
  CacheFeed* const feed_;
};

}  // namespace baleen::worker
