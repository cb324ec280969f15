//! Key ranges: contiguous, cut where a row group begins, and the same keys on both sides.

use std::ops::Range;

use crate::error::Result;
use crate::snapshot::RowGroups;

/// Ranges per thread, so that threads that get slower ranges do not hold up the end for long.
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
pub(super) fn key_ranges(old: &RowGroups<'_>, new: &RowGroups<'_>, threads: usize) -> Result<Vec<KeyRange>> {
    let by_old = old.len() >= new.len();
    let (base, other) = if by_old { (old, new) } else { (new, old) };
    let length = (base.len() / (threads * RANGES_PER_THREAD)).clamp(1, RANGE_ROW_GROUPS_MAX);

    let mut ranges = Vec::new();
    let mut start = (0, 0);
    for group in (length..base.len()).step_by(length) {
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
