//! Keys of many rows, column by column, with the order in which snapshots are sorted.
//!
//! Owns what a key may be and how two compare: numbers by value, text and bytes bytewise, composite keys column by
//! column. Knows nothing of files.

mod column;
mod groups;

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;

use crate::error::{Error, Result};
use crate::text::value_text;
use column::KeyColumn;
pub(crate) use column::key_type;
pub(crate) use groups::KeyedGroups;

/// The keys of a run of rows.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    arrays: Vec<ArrayRef>,
    columns: Vec<KeyColumn>,
    rows: usize,
}

/// Where rows do not ascend strictly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ascent {
    /// Each key is greater than the one before it.
    Strict,
    /// No key is smaller than the one before it, some are equal.
    WithDuplicates,
    /// The key of this row is smaller than the one before it.
    BrokenAt(usize),
}

impl Keys {
    /// # Errors
    ///
    /// [`Error::KeyType`] if a column's type cannot be a key. `names` are for that message.
    pub(crate) fn new(arrays: Vec<ArrayRef>, rows: usize, names: &[String]) -> Result<Self> {
        let columns = arrays
            .iter()
            .zip(names)
            .map(|(array, name)| KeyColumn::new(array, name))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { arrays, columns, rows })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The key columns as they were read.
    pub(crate) fn arrays(&self) -> &[ArrayRef] {
        &self.arrays
    }

    /// Keys that are one number, as numbers without a sign in the same order, counted from `first` on: put in place of what is in
    /// `into`. Of other keys nothing.
    pub(crate) fn numbers(&self, first: u64, into: &mut Vec<u64>) {
        into.clear();
        match self.columns.as_slice() {
            [KeyColumn::Signed(values)] => {
                into.extend(values.iter().map(|value| ((*value as u64) ^ (1 << 63)).wrapping_sub(first)));
            }
            [KeyColumn::Unsigned(values)] => {
                into.extend(values.iter().map(|value| value.wrapping_sub(first)));
            }
            _ => {}
        }
    }

    pub(crate) fn compare(&self, row: usize, other: &Self, other_row: usize) -> Ordering {
        self.columns
            .iter()
            .zip(&other.columns)
            .map(|(column, other)| column.compare(row, other, other_row))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// How many of the next `max` keys, from `row` here and `other_row` there, are pairwise equal before the first
    /// that is not.
    pub(crate) fn equal_prefix(&self, row: usize, other: &Self, other_row: usize, max: usize) -> usize {
        self.columns
            .iter()
            .zip(&other.columns)
            .fold(max, |max, (column, other)| column.equal_prefix(row, other, other_row, max))
    }

    pub(crate) fn ascent(&self) -> Ascent {
        // One column is the common case, and one vectorised pass.
        if let [column] = self.columns.as_slice()
            && column.ascends_strictly()
        {
            return Ascent::Strict;
        }
        let mut ascent = Ascent::Strict;
        for row in 1..self.rows {
            match self.compare(row - 1, self, row) {
                Ordering::Less => {}
                Ordering::Equal => ascent = Ascent::WithDuplicates,
                Ordering::Greater => return Ascent::BrokenAt(row),
            }
        }
        ascent
    }

    /// The first row whose key is not smaller than the key of `other_row`, in rows that ascend.
    pub(crate) fn lower_bound(&self, other: &Self, other_row: usize) -> usize {
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.compare(middle, other, other_row) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal | Ordering::Greater => high = middle,
            }
        }
        low
    }

    /// The rows of a range. Shares the memory.
    pub(crate) fn slice(&self, start: usize, rows: usize) -> Self {
        Self {
            arrays: self.arrays.iter().map(|array| array.slice(start, rows)).collect(),
            columns: self.columns.iter().map(|column| column.slice(start, rows)).collect(),
            rows,
        }
    }

    /// The rows with these numbers.
    pub(crate) fn take(&self, rows: &[u32], names: &[String]) -> Result<Self> {
        let indices = arrow::array::UInt32Array::from(rows.to_vec());
        let arrays = self
            .arrays
            .iter()
            .map(|array| arrow::compute::take(array, &indices, None))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::arrow("pick keys out of a run"))?;
        Self::new(arrays, rows.len(), names)
    }

    /// One key as texts, one for each column.
    pub(crate) fn texts(&self, row: usize) -> Vec<String> {
        self.arrays.iter().map(|array| value_text(array, row)).collect()
    }

    /// One key as a reader would write it: `(7, abc)`.
    pub(crate) fn display(&self, row: usize) -> String {
        match self.texts(row).as_slice() {
            [text] => text.clone(),
            texts => format!("({})", texts.join(", ")),
        }
    }
}

/// Whether keys of the two types can be merged with one another.
pub(crate) fn mergeable(left: &DataType, right: &DataType) -> bool {
    match (key_type(left), key_type(right)) {
        (Some(left), Some(right)) => left == right,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
