//! Rows in key order that are read a group at a time, and where a key is among them.

use super::Keys;
use crate::error::{Error, Result};

/// Rows in key order that are read a group at a time.
///
/// # Contract
///
/// Groups and rows are counted from 0, no group is empty, and what a group holds is the same each time it is read.
/// That keys ascend is for whoever reads them to find out.
pub(crate) trait KeyedGroups: Sync {
    /// What comes with the keys of a group.
    type Load;

    /// Where each group begins, and then where the last one ends.
    fn starts(&self) -> &[u64];

    /// The key columns' names.
    fn names(&self) -> &[String];

    /// The first key of a group, as the only one, where that is known without reading the group.
    fn known_first_key(&self, group: usize) -> Option<Keys>;

    /// The keys of a group, and what comes with them.
    fn load(&self, group: usize) -> Result<(Keys, Self::Load)>;

    /// The keys of a group for the sake of some of them: its rows are read by whoever asks for them later.
    fn peek(&self, group: usize) -> Result<(Keys, Self::Load)> {
        self.load(group)
    }

    /// The keys of a group for the rows of a range that holds only a part of them: the rest is in a range beside it.
    fn load_part(&self, group: usize) -> Result<(Keys, Self::Load)> {
        self.load(group)
    }

    /// A row's key is smaller than the one before it.
    fn out_of_order(&self, row: u64, key: String, previous: String) -> Error;

    /// The first key of a group, as the only one.
    fn first_key(&self, group: usize) -> Result<Keys> {
        match self.known_first_key(group) {
            Some(key) => Ok(key),
            None => Ok(self.peek(group)?.0.slice(0, 1)),
        }
    }

    /// How many groups there are.
    fn len(&self) -> usize {
        self.starts().len() - 1
    }

    /// How many rows there are.
    fn rows(&self) -> u64 {
        self.starts()[self.len()]
    }

    /// The group that holds a row.
    fn at_row(&self, row: u64) -> usize {
        self.starts()[1..].partition_point(|end| *end <= row)
    }

    /// Whether no row of an earlier group has a group's first key. Where that is not known without reading, it is said not
    /// to be so.
    fn begins_anew(&self, _group: usize) -> bool {
        false
    }

    /// The first row with a group's first key, which is `key`.
    fn start_of(&self, key: &Keys, group: usize) -> Result<u64> {
        if self.begins_anew(group) { Ok(self.starts()[group]) } else { self.lower_bound(key, group) }
    }

    /// The first row whose key is not smaller than the only one in `key`. `guess` is a group that is probably near: the
    /// two sides of a pair are much alike, so that from there it is a step or two, where bisecting would read a dozen
    /// groups.
    fn lower_bound(&self, key: &Keys, guess: usize) -> Result<u64> {
        // Groups below `low` begin with a smaller key, those from `high` on do not.
        let (mut low, mut high) = (0, self.len());
        let mut step = 1;
        let mut probe = guess;
        while low < high {
            probe = probe.clamp(low, high - 1);
            if self.first_key(probe)?.compare(0, key, 0).is_lt() {
                low = probe + 1;
            } else {
                high = probe;
            }
            // Steps double away from the guess until the bound lies between two probes, and then halve.
            probe = match (low == 0, high == self.len()) {
                (false, true) => low + step,
                (true, false) => high.saturating_sub(step),
                _ => low + (high - low) / 2,
            };
            step *= 2;
        }
        // The row is in the last group that begins with a smaller key, or directly behind it.
        let Some(group) = low.checked_sub(1) else { return Ok(0) };
        let within = self.peek(group)?.0.lower_bound(key, 0);
        Ok(self.starts()[group] + within as u64)
    }
}
