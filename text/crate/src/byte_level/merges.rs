//! Byte-pair encoding of one word, as the BPE model of `tokenizers` does it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub type Id = u32;
/// What two neighbours become, and how early.
#[derive(Clone, Copy)]
struct Merge {
    rank: u32,
    id: Id,
}

/// Words up to here are merged by looking at all pairs again and again, longer ones with a queue.
const SCANNED_SYMBOLS_MAX: usize = 40;
const NONE: u32 = u32::MAX;

pub struct Merges {
    byte_ids: [Id; 256],
    pairs: PairTable,
    whole: WholeTable,
}

/// Room for the work on one word, kept from word to word.
#[derive(Default)]
pub struct Scratch {
    ids: Vec<Id>,
    ranks: Vec<u32>,
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<(u32, u32, Id)>>,
}

#[derive(Clone, Copy)]
struct Symbol {
    id: Id,
    previous: u32,
    next: u32,
    merged: bool,
}

impl Merges {
    /// `byte_ids`: of the tokens of one byte; those of bytes that no text has are never asked for. `pairs`: what each
    /// two tokens in a row become, most eager first; of two entries for the same tokens the later one counts.
    pub fn new(byte_ids: [Id; 256], pairs: impl ExactSizeIterator<Item = (Id, Id, Id)>) -> Self {
        let mut table = PairTable::with_room_for(pairs.len());
        for (rank, (left, right, id)) in pairs.enumerate() {
            table.insert(left, right, Merge { rank: rank as u32, id });
        }
        Self { byte_ids, pairs: table, whole: WholeTable::with_room_for(0) }
    }

    /// Remembers the words that come to one token, of these: most words of a text do.
    pub fn learn_whole_words<'a>(&mut self, tokens: impl Iterator<Item = (Id, &'a [u8])>) {
        let mut scratch = Scratch::default();
        let mut ids = Vec::new();
        let mut whole = Vec::new();
        for (id, bytes) in tokens {
            if bytes.is_empty() || bytes.len() > WholeTable::BYTES_MAX {
                continue;
            }
            ids.clear();
            self.merge(bytes, &mut scratch, &mut ids);
            if ids == [id] {
                whole.push((id, bytes));
            }
        }
        let mut table = WholeTable::with_room_for(whole.len());
        for (id, bytes) in whole {
            table.insert(bytes, id);
        }
        self.whole = table;
    }

    /// Appends the tokens of `word`, which is not empty, to `out`.
    pub fn encode(&self, word: &[u8], scratch: &mut Scratch, out: &mut Vec<Id>) {
        match self.whole.find(word) {
            Some(id) => out.push(id),
            None => self.merge(word, scratch, out),
        }
    }

    fn merge(&self, word: &[u8], scratch: &mut Scratch, out: &mut Vec<Id>) {
        if word.len() <= SCANNED_SYMBOLS_MAX {
            self.merge_by_scanning(word, scratch, out);
        } else {
            self.merge_by_queue(word, scratch, out);
        }
    }

    /// The pair of the lowest rank first, of equal ones the leftmost.
    fn merge_by_scanning(&self, word: &[u8], scratch: &mut Scratch, out: &mut Vec<Id>) {
        let Scratch { ids, ranks, .. } = scratch;
        ids.clear();
        ids.extend(word.iter().map(|byte| self.byte_ids[*byte as usize]));
        // ranks[i]: of the pair that begins at i.
        ranks.clear();
        ranks.extend(ids.windows(2).map(|pair| self.pairs.rank(pair[0], pair[1])));
        loop {
            let mut best = (NONE, 0);
            for (at, &rank) in ranks.iter().enumerate() {
                if rank < best.0 {
                    best = (rank, at);
                }
            }
            let (rank, at) = best;
            if rank == NONE {
                break;
            }
            if let Some(merge) = self.pairs.find(ids[at], ids[at + 1]) {
                ids[at] = merge.id;
            }
            ids.remove(at + 1);
            ranks.remove(at);
            if at > 0 {
                ranks[at - 1] = self.pairs.rank(ids[at - 1], ids[at]);
            }
            if at < ranks.len() {
                ranks[at] = self.pairs.rank(ids[at], ids[at + 1]);
            }
        }
        out.extend_from_slice(ids);
    }

    fn merge_by_queue(&self, word: &[u8], scratch: &mut Scratch, out: &mut Vec<Id>) {
        let Scratch { symbols, queue, .. } = scratch;
        let count = word.len() as u32;
        symbols.clear();
        symbols.extend(word.iter().enumerate().map(|(at, byte)| Symbol {
            id: self.byte_ids[*byte as usize],
            previous: (at as u32).wrapping_sub(1), // NONE for the first
            next: if at as u32 + 1 == count { NONE } else { at as u32 + 1 },
            merged: false,
        }));
        queue.clear();
        for at in 1..count {
            self.enqueue(symbols, at - 1, queue);
        }
        while let Some(Reverse((_, at, id))) = queue.pop() {
            let Symbol { id: left, next, merged, .. } = symbols[at as usize];
            if merged || next == NONE {
                continue;
            }
            let right = symbols[next as usize];
            // One of the two may have become another since.
            if self.pairs.find(left, right.id).is_none_or(|merge| merge.id != id) {
                continue;
            }
            symbols[next as usize].merged = true;
            symbols[at as usize].id = id;
            symbols[at as usize].next = right.next;
            if right.next != NONE {
                symbols[right.next as usize].previous = at;
            }
            self.enqueue(symbols, symbols[at as usize].previous, queue);
            self.enqueue(symbols, at, queue);
        }
        out.extend(symbols.iter().filter(|symbol| !symbol.merged).map(|symbol| symbol.id));
    }

    /// The pair that begins at `at`, if there is one and it merges.
    fn enqueue(
        &self,
        symbols: &[Symbol],
        at: u32,
        queue: &mut BinaryHeap<Reverse<(u32, u32, Id)>>,
    ) {
        if at == NONE {
            return;
        }
        let left = symbols[at as usize];
        if left.next == NONE {
            return;
        }
        if let Some(merge) = self.pairs.find(left.id, symbols[left.next as usize].id) {
            queue.push(Reverse((merge.rank, at, merge.id)));
        }
    }
}

/// Pairs of tokens to what they become: open addressing, at most half full.
struct PairTable {
    slots: Vec<(u64, Merge)>,
    mask: usize,
}

impl PairTable {
    const EMPTY: u64 = u64::MAX; // no pair: ids are below 2^20

    fn with_room_for(count: usize) -> Self {
        let size = (count * 2).next_power_of_two().max(2);
        let empty = (Self::EMPTY, Merge { rank: NONE, id: 0 });
        Self { slots: vec![empty; size], mask: size - 1 }
    }

    fn slot_of(&self, key: u64) -> usize {
        let mut slot = (mix(key) >> 32) as usize & self.mask;
        while self.slots[slot].0 != key && self.slots[slot].0 != Self::EMPTY {
            slot = (slot + 1) & self.mask;
        }
        slot
    }

    fn insert(&mut self, left: Id, right: Id, merge: Merge) {
        let key = key_of(left, right);
        let slot = self.slot_of(key);
        self.slots[slot] = (key, merge);
    }

    fn find(&self, left: Id, right: Id) -> Option<Merge> {
        let key = key_of(left, right);
        let (found, merge) = self.slots[self.slot_of(key)];
        (found == key).then_some(merge)
    }

    fn rank(&self, left: Id, right: Id) -> u32 {
        self.find(left, right).map_or(NONE, |merge| merge.rank)
    }
}

fn key_of(left: Id, right: Id) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

fn mix(key: u64) -> u64 {
    let key = (key ^ key >> 29).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    key ^ key >> 32
}

/// Words that are one token, compared as one number.
struct WholeTable {
    slots: Vec<(u128, Id)>,
    mask: usize,
}

impl WholeTable {
    /// 15 bytes and the size fill a number.
    const BYTES_MAX: usize = 15;

    fn with_room_for(count: usize) -> Self {
        let size = (count * 2).next_power_of_two().max(2);
        Self { slots: vec![(0, 0); size], mask: size - 1 }
    }

    /// Never 0, as no word is empty.
    fn key_of(word: &[u8]) -> u128 {
        let mut bytes = [0; 16];
        bytes[..word.len()].copy_from_slice(word);
        bytes[Self::BYTES_MAX] = word.len() as u8;
        u128::from_le_bytes(bytes)
    }

    fn slot_of(&self, key: u128) -> usize {
        let folded = (key as u64).wrapping_mul(0xA24B_AED4_963E_E407) ^ (key >> 64) as u64;
        let mut slot = (mix(folded) >> 32) as usize & self.mask;
        while self.slots[slot].0 != key && self.slots[slot].0 != 0 {
            slot = (slot + 1) & self.mask;
        }
        slot
    }

    fn insert(&mut self, word: &[u8], id: Id) {
        let key = Self::key_of(word);
        let slot = self.slot_of(key);
        self.slots[slot] = (key, id);
    }

    fn find(&self, word: &[u8]) -> Option<Id> {
        if word.len() > Self::BYTES_MAX {
            return None;
        }
        let key = Self::key_of(word);
        let (found, id) = self.slots[self.slot_of(key)];
        (found == key).then_some(id)
    }
}
