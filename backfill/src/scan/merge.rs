//! The differences of two cursors over the same key range.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef};
use arrow::compute::interleave;

use super::cursor::{Cursor, Run};
use crate::error::{Error, Result};
use crate::findings::FindingKind;

/// Differences with their keys, in key order.
#[derive(Debug)]
pub(super) struct Differences {
    pub(super) kinds: Vec<FindingKind>,
    pub(super) keys: Vec<ArrayRef>,
    pub(super) mismatches: Vec<Mismatch>,
}

/// A row that is there on both sides with different hashes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mismatch {
    /// Which of the differences it is.
    pub(super) at: usize,
    pub(super) old_row: u64,
    pub(super) new_row: u64,
    /// The row's hash in old minus its hash in new.
    pub(super) hash_difference: u64,
}

/// Merges the two cursors to their ends. `found` gets differences in key order; `compared` gets numbers of rows, now
/// and then.
pub(super) fn merge<'a>(
    mut old: Cursor<'a>,
    mut new: Cursor<'a>,
    mut found: impl FnMut(Differences) -> Result<()>,
    mut compared: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let (mut old_run, mut new_run) = (Position::next(&mut old)?, Position::next(&mut new)?);
    loop {
        let mut segment = Segment::default();
        match (&mut old_run, &mut new_run) {
            (Some(old), Some(new)) => segment.compare(old, new),
            (Some(old), None) => segment.take_rest(old, FROM_OLD, FindingKind::Missing),
            (None, Some(new)) => segment.take_rest(new, FROM_NEW, FindingKind::Orphaned),
            (None, None) => return Ok(()),
        }
        if !segment.places.is_empty() {
            found(segment.into_differences(old_run.as_ref(), new_run.as_ref())?)?;
        }
        for (run, cursor) in [(&mut old_run, &mut old), (&mut new_run, &mut new)] {
            if let Some(done) = run.as_ref().filter(|run| run.is_at_end()) {
                compared(done.run.rows_read())?;
                // Freed before the next is read: that is a third of what a side holds.
                *run = None;
                *run = Position::next(cursor)?;
            }
        }
    }
}

/// Which of the two runs a difference's key is taken from.
const FROM_OLD: usize = 0;
const FROM_NEW: usize = 1;

struct Position {
    run: Run,
    index: usize,
}

impl Position {
    fn next(cursor: &mut Cursor<'_>) -> Result<Option<Self>> {
        Ok(cursor.next()?.map(|run| Self { run, index: 0 }))
    }

    fn is_at_end(&self) -> bool {
        self.index == self.run.len()
    }

    fn is_duplicated(&self) -> bool {
        self.run.is_duplicated(self.index)
    }
}

/// What is found while the same two runs are being compared.
#[derive(Default)]
struct Segment {
    kinds: Vec<FindingKind>,
    /// Where the keys are: which of the two runs, and where in it.
    places: Vec<(usize, usize)>,
    mismatches: Vec<Mismatch>,
}

impl Segment {
    /// Compares until one of the two runs is at its end.
    fn compare(&mut self, old: &mut Position, new: &mut Position) {
        while !old.is_at_end() && !new.is_at_end() {
            skip_equal(old, new);
            if old.is_at_end() || new.is_at_end() {
                break;
            }
            match old.run.keys.compare(old.index, &new.run.keys, new.index) {
                Ordering::Less => self.take(old, FROM_OLD, FindingKind::Missing),
                Ordering::Greater => self.take(new, FROM_NEW, FindingKind::Orphaned),
                Ordering::Equal => self.take_both(old, new),
            }
        }
    }

    fn take_rest(&mut self, side: &mut Position, from: usize, kind: FindingKind) {
        while !side.is_at_end() {
            self.take(side, from, kind);
        }
    }

    fn take(&mut self, side: &mut Position, from: usize, kind: FindingKind) {
        let kind = if side.is_duplicated() { FindingKind::Duplicated } else { kind };
        self.add(kind, (from, side.index));
        side.index += 1;
    }

    fn take_both(&mut self, old: &mut Position, new: &mut Position) {
        let (old_hash, new_hash) = (old.run.hashes.get(old.index), new.run.hashes.get(new.index));
        if old.is_duplicated() || new.is_duplicated() {
            self.add(FindingKind::Duplicated, (FROM_OLD, old.index));
        } else if old_hash != new_hash {
            self.mismatches.push(Mismatch {
                at: self.kinds.len(),
                old_row: old.run.row(old.index),
                new_row: new.run.row(new.index),
                hash_difference: old_hash.wrapping_sub(new_hash),
            });
            self.add(FindingKind::Mismatched, (FROM_OLD, old.index));
        }
        old.index += 1;
        new.index += 1;
    }

    fn add(&mut self, kind: FindingKind, place: (usize, usize)) {
        self.kinds.push(kind);
        self.places.push(place);
    }

    fn into_differences(self, old: Option<&Position>, new: Option<&Position>) -> Result<Differences> {
        // Places name runs by number, so a side without a run stands in with the other's arrays, unused.
        let arrays = |side: Option<&'_ Position>| side.map(|side| side.run.keys.arrays().to_vec());
        let old_arrays = arrays(old.or(new)).unwrap_or_default();
        let new_arrays = arrays(new.or(old)).unwrap_or_default();
        let keys = old_arrays
            .iter()
            .zip(&new_arrays)
            .map(|(old, new)| interleave(&[old.as_ref() as &dyn Array, new.as_ref()], &self.places))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::arrow("gather keys"))?;
        Ok(Differences { kinds: self.kinds, keys, mismatches: self.mismatches })
    }
}

/// Passes over rows that are the same on both sides: the common case, and so compared column by column, many rows at a
/// time. A duplicated key ends it, because that is a finding even where both sides have it.
fn skip_equal(old: &mut Position, new: &mut Position) {
    let old_rows = old.run.next_duplicated(old.index) - old.index;
    let new_rows = new.run.next_duplicated(new.index) - new.index;
    let max = old_rows.min(new_rows);
    let equal = old.run.keys.equal_prefix(old.index, &new.run.keys, new.index, max);
    let equal = old.run.hashes.equal_prefix(old.index, &new.run.hashes, new.index, equal);
    old.index += equal;
    new.index += equal;
}
