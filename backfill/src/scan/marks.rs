//! What stands beside keys while two sides are merged, and decides whether rows are equal.

use crate::snapshot::Hashes;

/// What stands beside the keys of rows.
pub(super) trait Marks: Clone {
    /// Whether two rows can be judged by it. Where not, rows with equal keys are only put side by side.
    const DECIDE: bool;

    /// The rows of a range.
    fn slice(&self, start: usize, rows: usize) -> Self;

    /// The rows with these numbers.
    fn take(&self, rows: &[u32]) -> Self;

    /// How many of the next `max` rows, from `row` here and `other_row` there, are equal before the first that is not.
    fn equal_prefix(&self, row: usize, other: &Self, other_row: usize, max: usize) -> usize;

    /// By how much two rows differ; 0 for equal ones.
    fn difference(&self, row: usize, other: &Self, other_row: usize) -> u64;
}

impl Marks for Hashes {
    const DECIDE: bool = true;

    fn slice(&self, start: usize, rows: usize) -> Self {
        Hashes::slice(self, start, rows)
    }

    fn take(&self, rows: &[u32]) -> Self {
        rows.iter().map(|row| self.get(*row as usize)).collect()
    }

    fn equal_prefix(&self, row: usize, other: &Self, other_row: usize, max: usize) -> usize {
        Hashes::equal_prefix(self, row, other, other_row, max)
    }

    fn difference(&self, row: usize, other: &Self, other_row: usize) -> u64 {
        self.get(row).wrapping_sub(other.get(other_row))
    }
}

/// Nothing: keys alone are read.
impl Marks for () {
    const DECIDE: bool = false;

    fn slice(&self, _start: usize, _rows: usize) -> Self {}

    fn take(&self, _rows: &[u32]) -> Self {}

    fn equal_prefix(&self, _row: usize, _other: &Self, _other_row: usize, max: usize) -> usize {
        max
    }

    fn difference(&self, _row: usize, _other: &Self, _other_row: usize) -> u64 {
        0
    }
}
