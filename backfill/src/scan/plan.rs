//! Key ranges: contiguous, cut where a row group begins, and the same keys on both sides.

use std::ops::Range;

use super::cursor::RowGroups;
use crate::error::Result;
use crate::keys::Keys;

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
        let cut = base.keys(group)?.slice(0, 1);
        let end = (lower_bound(base, &cut, group)?, lower_bound(other, &cut, group)?);
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

/// The first row whose key is not smaller than `key`. `guess` is a row group that is probably near: the two sides are
/// much alike, so that from there it is a step or two, where bisecting would read a dozen row groups.
fn lower_bound(groups: &RowGroups<'_>, key: &Keys, guess: usize) -> Result<u64> {
    // Row groups below `low` begin with a smaller key, those from `high` on do not.
    let (mut low, mut high) = (0, groups.len());
    let mut step = 1;
    let mut probe = guess;
    while low < high {
        probe = probe.clamp(low, high - 1);
        if groups.keys(probe)?.compare(0, key, 0).is_lt() {
            low = probe + 1;
        } else {
            high = probe;
        }
        // Steps double away from the guess until the bound lies between two probes, and then halve.
        probe = match (low == 0, high == groups.len()) {
            (false, true) => low + step,
            (true, false) => high.saturating_sub(step),
            _ => low + (high - low) / 2,
        };
        step *= 2;
    }
    // The row is in the last row group that begins with a smaller key, or directly behind it.
    let Some(group) = low.checked_sub(1) else { return Ok(0) };
    let within = groups.keys(group)?.lower_bound(key, 0);
    Ok(groups.first_row(group) + within as u64)
}
