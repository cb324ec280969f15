//! The keys of one partition, each once, and what becomes of them.

use super::key_code::mixed;

/// The keys of one partition.
pub(super) struct Table {
    /// Entries by what their ids are mixed to, plus one; 0 is free. Twice as many as there are entries, at least.
    slots: Vec<u32>,
    ids: Vec<u64>,
    states: Vec<u8>,
    /// What stands beside a key: old's, and then by how much new's differs.
    words: Vec<u64>,
    words_per_entry: usize,
    /// The keys that are more than their ids, one behind the other, and where each ends.
    keys: Vec<u8>,
    key_ends: Vec<usize>,
}

/// What there is of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Equal,
    Differs,
    OnlyOld,
    OnlyNew,
    /// A side has it more than once.
    Repeated,
}

const OLD: u8 = 1;
const NEW: u8 = 2;
const REPEATED: u8 = 4;
const DIFFERS: u8 = 8;

impl Table {
    pub(super) fn new(words_per_entry: usize) -> Self {
        Self {
            slots: vec![0; 1024],
            ids: Vec::new(),
            states: Vec::new(),
            words: Vec::new(),
            words_per_entry,
            keys: Vec::new(),
            key_ends: Vec::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots.fill(0);
        self.ids.clear();
        self.states.clear();
        self.words.clear();
        self.keys.clear();
        self.key_ends.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Takes in a row: old's before new's.
    pub(super) fn add(&mut self, side: usize, id: u64, key: Option<&[u8]>, words: &[u64]) {
        let state = if side == 0 { OLD } else { NEW };
        if (self.ids.len() + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut slot = mixed(id) as usize & mask;
        loop {
            let Some(entry) = (self.slots[slot] as usize).checked_sub(1) else {
                self.slots[slot] = self.ids.len() as u32 + 1;
                self.ids.push(id);
                self.states.push(state);
                self.words.extend_from_slice(words);
                if let Some(key) = key {
                    self.keys.extend_from_slice(key);
                    self.key_ends.push(self.keys.len());
                }
                return;
            };
            if self.ids[entry] == id && key.is_none_or(|key| key == self.key_bytes(entry)) {
                self.meet(entry, state, words);
                return;
            }
            slot = (slot + 1) & mask;
        }
    }

    pub(super) fn outcome(&self, entry: usize) -> Outcome {
        match self.states[entry] {
            state if state & REPEATED != 0 => Outcome::Repeated,
            state if state & DIFFERS != 0 => Outcome::Differs,
            OLD => Outcome::OnlyOld,
            NEW => Outcome::OnlyNew,
            _ => Outcome::Equal,
        }
    }

    pub(super) fn id(&self, entry: usize) -> u64 {
        self.ids[entry]
    }

    /// The key's id, and its bytes where it is more than that.
    pub(super) fn key(&self, entry: usize) -> (u64, &[u8]) {
        let bytes = if self.key_ends.is_empty() { &[] } else { self.key_bytes(entry) };
        (self.ids[entry], bytes)
    }

    pub(super) fn words(&self, entry: usize) -> &[u64] {
        &self.words[entry * self.words_per_entry..(entry + 1) * self.words_per_entry]
    }

    fn meet(&mut self, entry: usize, state: u8, words: &[u64]) {
        let before = self.states[entry];
        self.states[entry] |= state;
        if before & state != 0 {
            self.states[entry] |= REPEATED;
        } else {
            let first = entry * self.words_per_entry;
            let mut differs = false;
            for (old, new) in self.words[first..].iter_mut().zip(words) {
                *old = old.wrapping_sub(*new);
                differs |= *old != 0;
            }
            if differs {
                self.states[entry] |= DIFFERS;
            }
        }
    }

    fn key_bytes(&self, entry: usize) -> &[u8] {
        let start = entry.checked_sub(1).map_or(0, |before| self.key_ends[before]);
        &self.keys[start..self.key_ends[entry]]
    }

    fn grow(&mut self) {
        let slots = self.slots.len() * 2;
        self.slots.clear();
        self.slots.resize(slots, 0);
        for (entry, id) in self.ids.iter().enumerate() {
            let mut slot = mixed(*id) as usize & (slots - 1);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (slots - 1);
            }
            self.slots[slot] = entry as u32 + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_told_from_the_others() {
        let mut table = Table::new(2);
        for (id, words) in [(1, [5, 5]), (2, [5, 5]), (3, [1, 2]), (4, [1, 1]), (4, [1, 1])] {
            table.add(0, id, None, &words);
        }
        for (id, words) in [(1, [5, 5]), (3, [4, 2]), (4, [1, 1]), (9, [0, 0]), (8, [0, 0]), (8, [0, 0])] {
            table.add(1, id, None, &words);
        }
        use Outcome::*;
        let found: Vec<_> = (0..table.len()).map(|entry| (table.id(entry), table.outcome(entry))).collect();
        assert_eq!(
            found,
            [(1, Equal), (2, OnlyOld), (3, Differs), (4, Repeated), (9, OnlyNew), (8, Repeated)]
        );
        assert_eq!(table.words(2), [1_u64.wrapping_sub(4), 0]);
    }

    #[test]
    fn keys_of_one_id_are_not_mixed_up_and_many_keys_find_room() {
        let mut table = Table::new(0);
        table.add(0, 7, Some(b"a"), &[]);
        table.add(1, 7, Some(b"b"), &[]);
        table.add(1, 7, Some(b"a"), &[]);
        assert_eq!((table.outcome(0), table.outcome(1)), (Outcome::Equal, Outcome::OnlyNew));
        table.clear();
        (0..10_000).for_each(|id| table.add(0, id, None, &[]));
        (0..10_000).rev().for_each(|id| table.add(1, id, None, &[]));
        assert_eq!(table.len(), 10_000);
        assert!((0..10_000).all(|entry| table.outcome(entry) == Outcome::Equal));
    }
}
