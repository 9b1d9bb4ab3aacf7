#include "router/policy/prefix/prefix_index.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "observability/base/check.h"

namespace baleen::router {
namespace {

constexpr std::size_t kAhead = 8;  // blocks of a prompt
constexpr std::uint64_t kInlineMax = 5;
constexpr std::uint64_t kIsSet = 15;
constexpr std::uint64_t kCountMask = 15;
constexpr int kCountBits = 4;
constexpr int kSlotBits = 12;
constexpr std::uint64_t kSlotMask = (std::uint64_t{1} << kSlotBits) - 1;
static_assert(kCountBits + kInlineMax * kSlotBits <= 64);
static_assert(kPrefixSlotsMax == kSlotMask + 1);

int ShiftOf(std::uint64_t index) { return kCountBits + static_cast<int>(index) * kSlotBits; }
std::uint64_t CountOf(std::uint64_t holders) { return holders & kCountMask; }
bool IsSet(std::uint64_t holders) { return CountOf(holders) == kIsSet; }
std::uint32_t SetOf(std::uint64_t holders) {
  return static_cast<std::uint32_t>(holders >> kCountBits);
}
std::uint32_t SlotAt(std::uint64_t holders, std::uint64_t index) {
  return static_cast<std::uint32_t>((holders >> ShiftOf(index)) & kSlotMask);
}

std::uint64_t Bit(std::uint32_t slot) { return std::uint64_t{1} << (slot % 64); }

}  // namespace

PrefixIndex::PrefixIndex(const PrefixIndexOptions& options) : options_(options) {}

PrefixIndex::Key PrefixIndex::KeyOf(const contract::BlockHash& hash) {
  Key key;
  std::memcpy(&key, hash.bytes.data(), sizeof(key));
  return key;
}

// --- Ranks ---

std::optional<PrefixIndex::Slot> PrefixIndex::FreeSlot() const {
  for (Slot slot = 0; slot < kPrefixSlotsMax; ++slot) {
    if (!used_.test(slot)) return slot;
  }
  return std::nullopt;
}

std::optional<PrefixIndex::Slot> PrefixIndex::AddRank(std::uint64_t blocks_max) {
  std::optional<Slot> slot = FreeSlot();
  // A sweep of what waits, and before it the rest of the one that is under way.
  for (std::size_t i = 0; !slot && i < 2 * kParts; ++i) {
    Sweep();
    slot = FreeSlot();
  }
  if (!slot) return std::nullopt;
  used_.set(*slot);
  live_[*slot / 64] |= Bit(*slot);
  if (*slot >= held_.size()) {
    held_.resize(*slot + 1);
    held_max_.resize(*slot + 1);
  }
  held_[*slot] = 0;
  held_max_[*slot] = blocks_max;
  return slot;
}

void PrefixIndex::RemoveRank(Slot slot) {
  BALEEN_CHECK((live_[slot / 64] & Bit(slot)) != 0, "a rank is removed once");
  live_[slot / 64] &= ~Bit(slot);
  if (held_[slot] == 0) {
    used_.reset(slot);
  } else {
    dying_.set(slot);
  }
}

void PrefixIndex::Sweep() {
  if (next_part_ == 0) {
    if (dying_.none()) return;
    sweeping_ = dying_;
    dying_.reset();
  }
  Part& part = parts_[next_part_];
  for (auto it = part.begin(); it != part.end();) {
    if (RemoveDying(it->second)) {
      part.erase(it++);
      --blocks_;
    } else {
      ++it;
    }
  }
  next_part_ = (next_part_ + 1) % kParts;
  if (next_part_ == 0) used_ &= ~sweeping_;
}

// True when nobody holds the block any more.
bool PrefixIndex::RemoveDying(Holders& holders) {
  if (!IsSet(holders)) {
    for (std::uint64_t i = CountOf(holders); i-- > 0;) {
      if (const Slot slot = SlotAt(holders, i); sweeping_.test(slot)) Remove(holders, slot);
    }
    return CountOf(holders) == 0;
  }
  const SlotSet words = sets_[SetOf(holders)];
  for (std::size_t w = 0; w < kWords; ++w) {
    for (std::uint64_t left = words[w]; left != 0; left &= left - 1) {
      const auto slot =
          static_cast<Slot>(w * 64 + static_cast<std::size_t>(std::countr_zero(left)));
      if (sweeping_.test(slot) && Remove(holders, slot) && CountOf(holders) == 0) return true;
    }
  }
  return false;
}

// --- Blocks ---

void PrefixIndex::Store(Slot slot, std::span<const contract::BlockHash> hashes) {
  for (const contract::BlockHash& hash : hashes) {
    const Key key = KeyOf(hash);
    Part& part = PartOf(key);
    const auto it = part.find(key);
    const bool is_new = it == part.end();
    if (held_[slot] >= held_max_[slot] || (is_new && blocks_ >= options_.blocks_max)) {
      ++dropped_total_;
      continue;
    }
    if (is_new) {
      part.emplace(key, std::uint64_t{slot} << kCountBits | 1);
      ++blocks_;
      ++held_[slot];
    } else if (Insert(it->second, slot)) {
      ++held_[slot];
    }
  }
}

void PrefixIndex::Evict(Slot slot, std::span<const contract::BlockHash> hashes) {
  for (const contract::BlockHash& hash : hashes) {
    const Key key = KeyOf(hash);
    Part& part = PartOf(key);
    const auto it = part.find(key);
    if (it == part.end() || !Remove(it->second, slot)) continue;
    --held_[slot];
    if (CountOf(it->second) != 0) continue;
    part.erase(it);
    --blocks_;
  }
}

// True when `slot` was not there and is now.
bool PrefixIndex::Insert(Holders& holders, Slot slot) {
  if (IsSet(holders)) {
    std::uint64_t& word = sets_[SetOf(holders)][slot / 64];
    if ((word & Bit(slot)) != 0) return false;
    word |= Bit(slot);
    return true;
  }
  const std::uint64_t count = CountOf(holders);
  for (std::uint64_t i = 0; i < count; ++i) {
    if (SlotAt(holders, i) == slot) return false;
  }
  if (count < kInlineMax) {
    holders = (holders | std::uint64_t{slot} << ShiftOf(count)) + 1;
    return true;
  }
  const std::optional<std::uint32_t> set = TakeSet();
  if (!set) {
    ++dropped_total_;
    return false;
  }
  SlotSet& words = sets_[*set];
  for (std::uint64_t i = 0; i < count; ++i) {
    words[SlotAt(holders, i) / 64] |= Bit(SlotAt(holders, i));
  }
  words[slot / 64] |= Bit(slot);
  holders = std::uint64_t{*set} << kCountBits | kIsSet;
  return true;
}

// True when `slot` was there; a count of 0 then means that nobody is.
bool PrefixIndex::Remove(Holders& holders, Slot slot) {
  if (IsSet(holders)) {
    SlotSet& words = sets_[SetOf(holders)];
    if ((words[slot / 64] & Bit(slot)) == 0) return false;
    words[slot / 64] &= ~Bit(slot);
    if (std::ranges::all_of(words, [](std::uint64_t word) { return word == 0; })) {
      free_sets_.push_back(SetOf(holders));
      holders = 0;
    }
    return true;
  }
  const std::uint64_t count = CountOf(holders);
  for (std::uint64_t i = 0; i < count; ++i) {
    if (SlotAt(holders, i) != slot) continue;
    // The last one takes its place.
    const std::uint64_t last = SlotAt(holders, count - 1);
    holders &= ~(kSlotMask << ShiftOf(i));
    holders |= last << ShiftOf(i);
    holders &= ~(kSlotMask << ShiftOf(count - 1));
    --holders;
    return true;
  }
  return false;
}

std::optional<std::uint32_t> PrefixIndex::TakeSet() {
  if (!free_sets_.empty()) {
    const std::uint32_t set = free_sets_.back();
    free_sets_.pop_back();
    return set;  // sets are freed when they are empty
  }
  if (sets_.size() >= options_.shared_blocks_max) return std::nullopt;
  sets_.push_back({});
  return static_cast<std::uint32_t>(sets_.size() - 1);
}

// --- Match ---

// The holders as a bit set: the one that there is, or `scratch`, of which as many words are filled
// as there are slots for.
const std::uint64_t* PrefixIndex::WordsOf(Holders holders, SlotSet& scratch) const {
  if (IsSet(holders)) return sets_[SetOf(holders)].data();
  std::fill_n(scratch.begin(), (held_.size() + 63) / 64, 0);
  for (std::uint64_t i = 0; i < CountOf(holders); ++i) {
    scratch[SlotAt(holders, i) / 64] |= Bit(SlotAt(holders, i));
  }
  return scratch.data();
}

std::span<std::uint16_t> PrefixIndex::Match(std::span<const contract::BlockHash> hashes) {
  depths_.assign(held_.size(), 0);
  const std::size_t words = (held_.size() + 63) / 64;
  SlotSet left = live_;  // have all blocks so far
  SlotSet scratch;
  std::uint16_t depth = 0;
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    // The table is larger than the caches that are near: a few look-ups are under way at a time.
    if (i % kAhead == 0) {
      for (std::size_t j = i; j < std::min(i + 2 * kAhead, hashes.size()); ++j) {
        PartOf(KeyOf(hashes[j])).prefetch(KeyOf(hashes[j]));
      }
    }
    const Key key = KeyOf(hashes[i]);
    const Part& part = PartOf(key);
    const auto it = part.find(key);
    if (it == part.end()) break;
    const std::uint64_t* holders = WordsOf(it->second, scratch);
    std::uint64_t any = 0;
    for (std::size_t w = 0; w < words; ++w) {
      std::uint64_t gone = left[w] & ~holders[w];
      left[w] &= holders[w];
      any |= left[w];
      if (depth == 0) continue;
      for (; gone != 0; gone &= gone - 1) {
        depths_[w * 64 + static_cast<std::size_t>(std::countr_zero(gone))] = depth;
      }
    }
    if (any == 0) return depths_;
    ++depth;
  }
  for (std::size_t w = 0; w < words; ++w) {
    for (std::uint64_t rest = left[w]; rest != 0; rest &= rest - 1) {
      depths_[w * 64 + static_cast<std::size_t>(std::countr_zero(rest))] = depth;
    }
  }
  return depths_;
}

}  // namespace baleen::router
