//! Key ranges: contiguous, cut where a row group begins, and the same keys on both sides.

use std::ops::Range;

use crate::error::Result;
use crate::findings::Cut;
use crate::keys::KeyedGroups;

/// Ranges per thread at least, so that threads that get slower ranges do not hold up the end for long.
const RANGES_PER_THREAD: usize = 4;

/// Row groups per range at most. A range's end reads one row group of the other side twice; and what a range has found
/// waits in memory while earlier ranges are written, so ranges must not be long.
const RANGE_ROW_GROUPS_MAX: usize = 16;

/// The rows of both sides whose keys are in one range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyRange {
    pub(super) old: Range<u64>,
    pub(super) new: Range<u64>,
}

/// All rows of both sides, cut into ranges.
pub(super) fn key_ranges<G: KeyedGroups>(old: &G, new: &G, threads: usize) -> Result<Vec<KeyRange>> {
    let by_old = old.len() >= new.len();
    let (base, other) = if by_old { (old, new) } else { (new, old) };
    // Threads take turns, so that their number should divide that of the ranges.
    let count = base.len().div_ceil(RANGE_ROW_GROUPS_MAX).max(threads * RANGES_PER_THREAD);
    let count = count.next_multiple_of(threads).min(base.len()).max(1);

    let mut ranges = Vec::with_capacity(count);
    let mut start = (0, 0);
    for range in 1..count {
        let group = range * base.len() / count;
        let cut = base.first_key(group)?;
        let end = (base.lower_bound(&cut, group)?, other.lower_bound(&cut, group)?);
        ranges.push((start.0..end.0, start.1..end.1));
        start = end;
    }
    ranges.push((start.0..base.rows(), start.1..other.rows()));
    Ok(ranges
        .into_iter()
        .map(
            |(base, other)| {
                if by_old { KeyRange { old: base, new: other } } else { KeyRange { old: other, new: base } }
            },
        )
        .collect())
}

/// The ranges without what comes before a place.
pub(super) fn after(ranges: Vec<KeyRange>, done: Cut) -> Vec<KeyRange> {
    ranges
        .into_iter()
        .map(|range| KeyRange {
            old: range.old.start.max(done.old)..range.old.end.max(done.old),
            new: range.new.start.max(done.new)..range.new.end.max(done.new),
        })
        .filter(|range| !range.old.is_empty() || !range.new.is_empty())
        .collect()
}

impl KeyRange {
    /// Where it ends.
    pub(super) fn end(&self) -> Cut {
        Cut { old: self.old.end, new: self.new.end }
    }
}
