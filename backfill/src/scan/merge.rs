//! The differences of two cursors over the same key range.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef};
use arrow::compute::interleave;

use super::cursor::{Cursor, Run};
use super::marks::Marks;
use crate::error::{Error, Result};
use crate::findings::FindingKind;
use crate::keys::KeyedGroups;

/// What is found while the same two runs are being compared, in key order.
#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) kinds: Vec<FindingKind>,
    /// Where the keys of these are.
    pub(super) places: Vec<Place>,
    pub(super) mismatches: Vec<Mismatch>,
    /// Rows with equal keys, where what is beside the keys does not say whether they are equal.
    pub(super) aligned: Vec<Aligned>,
    /// The key columns of the two runs.
    keys: [Vec<ArrayRef>; 2],
}

/// Which of the two runs a key is in, and where.
pub(super) type Place = (usize, usize);

/// A key of old.
pub(super) const FROM_OLD: usize = 0;
/// A key of new.
const FROM_NEW: usize = 1;

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

/// Contiguous rows with pairwise equal keys, each of which only one row of a side has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aligned {
    /// How many differences come before it.
    pub(super) at: usize,
    /// Where its first key is in old's run.
    pub(super) old_index: usize,
    pub(super) old_row: u64,
    pub(super) new_row: u64,
    pub(super) rows: usize,
}

impl Segment {
    /// The keys at these places, column by column.
    pub(super) fn keys(&self, places: &[Place]) -> Result<Vec<ArrayRef>> {
        let [old, new] = &self.keys;
        old.iter()
            .zip(new)
            .map(|(old, new)| interleave(&[old.as_ref() as &dyn Array, new.as_ref()], places))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::arrow("gather keys"))
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty() && self.aligned.is_empty()
    }
}

/// Merges the two cursors to their ends. `found` gets differences in key order; `compared` gets numbers of rows, now
/// and then.
pub(super) fn merge<'a, G: KeyedGroups<Load: Marks>>(
    mut old: Cursor<'a, G>,
    mut new: Cursor<'a, G>,
    mut found: impl FnMut(Segment) -> Result<()>,
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
        if !segment.is_empty() {
            // Places name runs by number, so a side without a run stands in with the other's arrays, unused.
            let arrays = |side: Option<&Position<G::Load>>| side.map(|side| side.run.keys.arrays().to_vec());
            let (old, new) = (old_run.as_ref(), new_run.as_ref());
            segment.keys = [arrays(old.or(new)).unwrap_or_default(), arrays(new.or(old)).unwrap_or_default()];
            found(segment)?;
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

struct Position<M> {
    run: Run<M>,
    index: usize,
}

impl<M: Marks> Position<M> {
    fn next<G: KeyedGroups<Load = M>>(cursor: &mut Cursor<'_, G>) -> Result<Option<Self>> {
        Ok(cursor.next()?.map(|run| Self { run, index: 0 }))
    }

    fn is_at_end(&self) -> bool {
        self.index == self.run.len()
    }

    fn is_duplicated(&self) -> bool {
        self.run.is_duplicated(self.index)
    }
}

impl Segment {
    /// Compares until one of the two runs is at its end.
    fn compare<M: Marks>(&mut self, old: &mut Position<M>, new: &mut Position<M>) {
        while !old.is_at_end() && !new.is_at_end() {
            self.skip_equal(old, new);
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

    /// Passes over rows that are the same on both sides: the common case, and so compared column by column, many rows at
    /// a time. A duplicated key ends it, because that is a finding even where both sides have it.
    fn skip_equal<M: Marks>(&mut self, old: &mut Position<M>, new: &mut Position<M>) {
        let old_rows = old.run.next_duplicated(old.index) - old.index;
        let new_rows = new.run.next_duplicated(new.index) - new.index;
        let max = old_rows.min(new_rows);
        let equal = old.run.keys.equal_prefix(old.index, &new.run.keys, new.index, max);
        let equal = old.run.marks.equal_prefix(old.index, &new.run.marks, new.index, equal);
        if !M::DECIDE && equal > 0 {
            self.aligned.push(Aligned {
                at: self.kinds.len(),
                old_index: old.index,
                old_row: old.run.row(old.index),
                new_row: new.run.row(new.index),
                rows: equal,
            });
        }
        old.index += equal;
        new.index += equal;
    }

    fn take_rest<M: Marks>(&mut self, side: &mut Position<M>, from: usize, kind: FindingKind) {
        while !side.is_at_end() {
            self.take(side, from, kind);
        }
    }

    fn take<M: Marks>(&mut self, side: &mut Position<M>, from: usize, kind: FindingKind) {
        let kind = if side.is_duplicated() { FindingKind::Duplicated } else { kind };
        self.add(kind, (from, side.index));
        side.index += 1;
    }

    fn take_both<M: Marks>(&mut self, old: &mut Position<M>, new: &mut Position<M>) {
        let hash_difference = old.run.marks.difference(old.index, &new.run.marks, new.index);
        if old.is_duplicated() || new.is_duplicated() {
            self.add(FindingKind::Duplicated, (FROM_OLD, old.index));
        } else if hash_difference != 0 {
            self.mismatches.push(Mismatch {
                at: self.kinds.len(),
                old_row: old.run.row(old.index),
                new_row: new.run.row(new.index),
                hash_difference,
            });
            self.add(FindingKind::Mismatched, (FROM_OLD, old.index));
        }
        old.index += 1;
        new.index += 1;
    }

    fn add(&mut self, kind: FindingKind, place: Place) {
        self.kinds.push(kind);
        self.places.push(place);
    }
}
