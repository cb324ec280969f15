//! The keys of one partition, where a key is a number and nothing stands beside it: a number of 64 bits for each, which says
//! what the key is and which sides have it.

use super::key_code::{mixed, unmixed};
use super::partitions::PARTITIONS;
use crate::findings::FindingKind;

/// What a key is mixed to, but for its highest bits, in which its [states](OLD) are. The keys of a partition have these bits in
/// common, as there are never fewer partitions than they tell apart.
const MIXED_BITS: u32 = 64 - PARTITIONS.start().ilog2();

const MIXED: u64 = (1 << MIXED_BITS) - 1;

/// Old has it.
const OLD: u64 = 1 << MIXED_BITS;
/// New has it.
const NEW: u64 = OLD << 1;
/// A side has it more than once.
const REPEATED: u64 = NEW << 1;

const STATES: u64 = OLD | NEW | REPEATED;

/// A bit for each of the states that say nothing: of a free slot, and of a key that each side has once.
const NO_FINDING: u64 = 1 | 1 << ((OLD | NEW) >> MIXED_BITS);

/// Slots of a table that has not grown yet.
const SLOTS_MIN: usize = 1024;

/// The keys of one partition.
pub(super) struct KeyTable {
    /// Keys by what they are mixed to; 0 is free, since each key is of some side. Twice as many as there are keys, at least.
    slots: Vec<u64>,
    keys: usize,
}

impl KeyTable {
    pub(super) fn new() -> Self {
        Self { slots: vec![0; SLOTS_MIN], keys: 0 }
    }

    /// Begins again, over the same memory.
    pub(super) fn clear(&mut self) {
        self.slots.fill(0);
        self.keys = 0;
    }

    /// Takes in rows of a side.
    pub(super) fn add(&mut self, side: usize, ids: impl Iterator<Item = u64>) {
        let state = if side == 0 { OLD } else { NEW };
        for id in ids {
            let key = mixed(id) & MIXED;
            let slot = self.slot(key);
            match *slot {
                0 => {
                    *slot = key | state;
                    self.keys += 1;
                    if self.keys * 2 > self.slots.len() {
                        self.grow();
                    }
                }
                found => *slot = found | if found & state == 0 { state } else { REPEATED },
            }
        }
    }

    /// Where a key is, or is to be.
    #[inline]
    fn slot(&mut self, key: u64) -> &mut u64 {
        let mask = self.slots.len() - 1;
        let mut place = key as usize & mask;
        while self.slots[place] != 0 && self.slots[place] & MIXED != key {
            place = (place + 1) & mask;
        }
        &mut self.slots[place]
    }

    #[cold]
    fn grow(&mut self) {
        let slots = vec![0; self.slots.len() * 2];
        for found in std::mem::replace(&mut self.slots, slots) {
            if found != 0 {
                *self.slot(found & MIXED) = found;
            }
        }
    }

    /// Gives out the keys that not each side has once. `common` are the bits that all of them have where states are.
    pub(super) fn findings(&self, common: u64) -> impl Iterator<Item = (FindingKind, u64)> {
        // Asked as one question, which nearly always has the same answer: free slots and keys of both sides come in no order.
        let is_finding = |slot: &&u64| NO_FINDING >> (**slot >> MIXED_BITS) & 1 == 0;
        self.slots.iter().filter(is_finding).map(move |slot| {
            let kind = match slot & STATES {
                OLD => FindingKind::Missing,
                NEW => FindingKind::Orphaned,
                _ => FindingKind::Duplicated,
            };
            (kind, unmixed(common | slot & MIXED))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: u64 = 7 << MIXED_BITS;

    /// Ids of one partition, many of which belong to the same slot.
    fn ids() -> Vec<u64> {
        (0..4000).map(|number| unmixed(COMMON | ((number % 3000) << 32) | (number / 3000))).collect()
    }

    #[test]
    fn every_kind_is_told_from_the_others() {
        let ids = ids();
        let mut table = KeyTable::new();
        for _ in 0..2 {
            table.clear();
            table.add(0, [ids[0], ids[1], ids[2], ids[2], ids[3], ids[3]].into_iter());
            table.add(1, [ids[0], ids[3], ids[4], ids[5], ids[5], ids[6], ids[6]].into_iter());
            let mut found: Vec<_> = table.findings(COMMON).map(|(kind, id)| (id, kind)).collect();
            found.sort_by_key(|(id, _)| ids.iter().position(|known| known == id));
            use FindingKind::*;
            let expected = [Missing, Duplicated, Duplicated, Orphaned, Duplicated, Duplicated];
            assert_eq!(found, ids[1..].iter().copied().zip(expected).collect::<Vec<_>>());
        }
    }

    #[test]
    fn many_find_room_wherever_they_belong() {
        let mut ids = ids();
        let mut table = KeyTable::new();
        table.add(0, ids.iter().copied());
        let mut found: Vec<u64> = table.findings(COMMON).map(|(_, id)| id).collect();
        found.sort_unstable();
        ids.sort_unstable();
        assert_eq!(found, ids);
        table.add(1, ids.iter().copied());
        assert_eq!(table.findings(COMMON).count(), 0);
    }
}
