//! Row groups that two key ranges share are read once.
//!
//! Ranges are cut where a row group of one side begins, which is somewhere inside one of the other side's. That one is looked
//! into for the cut, and then both ranges read their part of it: three times the same decoding, unless it is kept meanwhile.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::keys::{KeyedGroups, Keys};

/// Groups that are kept per thread at most: the one at the end of its range, and those that were looked into to find it where footers
/// do not say which keys groups begin with. What does not find room is only read again.
pub(super) const KEPT_PER_THREAD: usize = 6;

/// Row groups of one side, of which those at the ends of ranges are kept until both their ranges have had them.
pub(super) struct SharedGroups<G: KeyedGroups> {
    groups: G,
    kept_max: usize,
    kept: Mutex<VecDeque<Kept<G::Load>>>,
}

struct Kept<L> {
    group: usize,
    keys: Keys,
    load: L,
    /// Whether one of its ranges has had it.
    is_half_done: bool,
}

impl<G: KeyedGroups<Load: Clone>> SharedGroups<G> {
    pub(super) fn new(groups: G, threads: usize) -> Self {
        Self { groups, kept_max: threads * KEPT_PER_THREAD, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept<G::Load>>> {
        // What is kept was read whole, whatever became of the thread that read it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a group that is not kept, and keeps it.
    fn keep(&self, group: usize, is_half_done: bool) -> Result<(Keys, G::Load)> {
        let (keys, load) = self.groups.load(group)?;
        let mut kept = self.kept();
        kept.push_back(Kept { group, keys: keys.clone(), load: load.clone(), is_half_done });
        if kept.len() > self.kept_max {
            kept.pop_front();
        }
        Ok((keys, load))
    }
}

impl<G: KeyedGroups<Load: Clone + Send>> KeyedGroups for SharedGroups<G> {
    type Load = G::Load;

    fn starts(&self) -> &[u64] {
        self.groups.starts()
    }

    fn names(&self) -> &[String] {
        self.groups.names()
    }

    fn known_first_key(&self, group: usize) -> Option<Keys> {
        self.groups.known_first_key(group)
    }

    fn load(&self, group: usize) -> Result<(Keys, G::Load)> {
        let found = {
            let mut kept = self.kept();
            let place = kept.iter().position(|kept| kept.group == group);
            place.and_then(|place| kept.remove(place))
        };
        match found {
            Some(found) => Ok((found.keys, found.load)),
            None => self.groups.load(group),
        }
    }

    fn peek(&self, group: usize) -> Result<(Keys, G::Load)> {
        let found = {
            let kept = self.kept();
            let found = kept.iter().find(|kept| kept.group == group);
            found.map(|found| (found.keys.clone(), found.load.clone()))
        };
        found.map_or_else(|| self.keep(group, false), Ok)
    }

    fn load_part(&self, group: usize) -> Result<(Keys, G::Load)> {
        let found = {
            let mut kept = self.kept();
            let place = kept.iter().position(|kept| kept.group == group);
            place.and_then(|place| {
                if kept[place].is_half_done {
                    return kept.remove(place).map(|found| (found.keys, found.load));
                }
                kept[place].is_half_done = true;
                Some((kept[place].keys.clone(), kept[place].load.clone()))
            })
        };
        found.map_or_else(|| self.keep(group, true), Ok)
    }

    fn out_of_order(&self, row: u64, key: String, previous: String) -> Error {
        self.groups.out_of_order(row, key, previous)
    }

    fn begins_anew(&self, group: usize) -> bool {
        self.groups.begins_anew(group)
    }
}
