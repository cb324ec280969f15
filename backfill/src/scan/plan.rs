//! Key ranges: contiguous, cut where a row group begins, and the same keys on both sides.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::findings::Cut;
use crate::keys::KeyedGroups;

/// Row groups per range at most. What a range has found waits in memory while earlier ranges are written, so ranges must not
/// be long.
pub(super) const RANGE_ROW_GROUPS_MAX: usize = 16;

/// All rows of both sides, cut into ranges.
///
/// Where a range begins and ends is found out when a thread takes it up: what was read for that is then read no second time
/// by the range itself (`shared_groups`).
pub(super) struct Plan<'a, G> {
    base: &'a G,
    other: &'a G,
    by_old: bool,
    len: usize,
    first: usize,
    /// What comes before it was compared by a scan that was stopped.
    done: Cut,
    /// Where each range but the first begins, in rows of the base and of the other, once somebody has asked.
    cuts: Vec<Mutex<Option<(u64, u64)>>>,
}

/// How many ranges there are to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    pub(super) threads: usize,
    /// Ranges for each thread at least.
    pub(super) ranges_per_thread: usize,
    /// Row groups in each range at most, but for those at its ends.
    pub(super) range_groups_max: usize,
}

/// The rows of both sides whose keys are in one range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyRange {
    pub(super) old: Range<u64>,
    pub(super) new: Range<u64>,
}

impl<'a, G: KeyedGroups> Plan<'a, G> {
    /// So many ranges per thread at least, where there are as many row groups: so that what one thread does last does not
    /// hold up the end for long.
    pub(super) fn new(old: &'a G, new: &'a G, shares: Shares, done: Cut) -> Self {
        let Shares { threads, ranges_per_thread, range_groups_max } = shares;
        let by_old = old.len() >= new.len();
        let (base, other) = if by_old { (old, new) } else { (new, old) };
        // Ranges are much alike, so that their number should be a multiple of the threads'.
        let len = base.len().div_ceil(range_groups_max).max(threads * ranges_per_thread);
        let len = len.next_multiple_of(threads).min(base.len()).max(1);
        let done_of_base = if by_old { done.old } else { done.new };
        let is_done = |end: &usize| base.starts()[end * base.len() / len] < done_of_base;
        let first = (1..len).take_while(is_done).count();
        let cuts = (1..len).map(|_| Mutex::new(None)).collect();
        Self { base, other, by_old, len, first, done, cuts }
    }

    /// The numbers of the ranges that are left to be compared.
    pub(super) fn numbers(&self) -> Range<usize> {
        self.first..self.len
    }

    /// A range, without what was done before.
    pub(super) fn range(&self, number: usize) -> Result<KeyRange> {
        // The end first: where the range begins is where another thread's ends, which is looking for it at the moment.
        let end = self.cut(number + 1)?;
        let start = self.cut(number)?;
        let (base, other) = (start.0..end.0, start.1..end.1);
        let (old, new) = if self.by_old { (base, other) } else { (other, base) };
        let after = |rows: Range<u64>, done: u64| rows.start.max(done)..rows.end.max(done);
        Ok(KeyRange { old: after(old, self.done.old), new: after(new, self.done.new) })
    }

    fn cut(&self, number: usize) -> Result<(u64, u64)> {
        if number == 0 {
            return Ok((0, 0));
        }
        let Some(cut) = self.cuts.get(number - 1) else { return Ok((self.base.rows(), self.other.rows())) };
        // Held while it is looked for, so that not two threads look for the same.
        let mut cut = cut.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cut) = *cut {
            return Ok(cut);
        }
        let group = number * self.base.len() / self.len;
        let key = self.base.first_key(group)?;
        let guess = group * self.other.len() / self.base.len();
        Ok(*cut.insert((self.base.start_of(&key, group)?, self.other.lower_bound(&key, guess)?)))
    }
}

impl KeyRange {
    /// Where it ends.
    pub(super) fn end(&self) -> Cut {
        Cut { old: self.old.end, new: self.new.end }
    }
}
