//! A snapshot as its row groups, and where a key is in them.

use std::ops::Range;

use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::{DataFile, Snapshot};
use crate::error::{Error, Result};
use crate::keys::Keys;

/// A row group of a snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowGroup<'a> {
    pub(crate) file: &'a DataFile,
    pub(crate) index: usize,
}

/// A snapshot as its row groups, in order.
pub(crate) struct RowGroups<'a> {
    groups: Vec<RowGroup<'a>>,
    names: &'a [String],
    /// The types that both sides' key columns are brought to.
    key_types: &'a [DataType],
    rows: u64,
}

impl<'a> RowGroups<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, key_types: &'a [DataType]) -> Self {
        let groups = snapshot
            .files()
            .iter()
            .flat_map(|file| (0..file.row_groups()).map(move |index| RowGroup { file, index }))
            .collect();
        Self { groups, names: &snapshot.manifest().key, key_types, rows: snapshot.rows() }
    }

    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn group(&self, index: usize) -> RowGroup<'a> {
        self.groups[index]
    }

    /// The key columns' names.
    pub(crate) fn names(&self) -> &'a [String] {
        self.names
    }

    pub(crate) fn first_row(&self, index: usize) -> u64 {
        self.groups.get(index).map_or(self.rows, |group| group.rows().start)
    }

    pub(crate) fn scan_bytes_max(&self) -> u64 {
        self.groups.iter().map(|group| group.file.scan_bytes(group.index)).max().unwrap_or(0)
    }

    pub(crate) fn keys(&self, index: usize) -> Result<Keys> {
        Ok(self.load(index)?.0)
    }

    /// The first row whose key is not smaller than the only one in `key`. `guess` is a row group that is probably near:
    /// the two sides of a pair are much alike, so that from there it is a step or two, where bisecting would read a dozen
    /// row groups.
    pub(crate) fn lower_bound(&self, key: &Keys, guess: usize) -> Result<u64> {
        // Row groups below `low` begin with a smaller key, those from `high` on do not.
        let (mut low, mut high) = (0, self.len());
        let mut step = 1;
        let mut probe = guess;
        while low < high {
            probe = probe.clamp(low, high - 1);
            if self.keys(probe)?.compare(0, key, 0).is_lt() {
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
        // The row is in the last row group that begins with a smaller key, or directly behind it.
        let Some(group) = low.checked_sub(1) else { return Ok(0) };
        let within = self.keys(group)?.lower_bound(key, 0);
        Ok(self.first_row(group) + within as u64)
    }

    /// The rows that have the only key in `key`.
    pub(crate) fn rows_of_key(&self, key: &Keys) -> Result<Range<u64>> {
        let start = self.lower_bound(key, self.len() / 2)?;
        let mut end = start;
        for index in self.at_row(start)..self.len() {
            let keys = self.keys(index)?;
            let first = (end - self.first_row(index)) as usize;
            let equal = (first..keys.rows()).take_while(|&row| keys.compare(row, key, 0).is_eq()).count();
            end += equal as u64;
            if first + equal < keys.rows() {
                break;
            }
        }
        Ok(start..end)
    }

    pub(crate) fn at_row(&self, row: u64) -> usize {
        self.groups.partition_point(|group| group.rows().end <= row)
    }

    pub(crate) fn load(&self, index: usize) -> Result<(Keys, ScalarBuffer<u64>)> {
        let group = self.groups[index];
        let columns = group.file.scan_columns(group.index)?;
        let arrays = columns
            .keys
            .iter()
            .zip(self.key_types)
            .map(
                |(array, key_type)| {
                    if array.data_type() == key_type { Ok(array.clone()) } else { cast(array, key_type) }
                },
            )
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::arrow("bring keys to a common type"))?;
        Ok((Keys::new(arrays, columns.hashes.len(), self.names)?, columns.hashes))
    }
}

impl RowGroup<'_> {
    pub(crate) fn rows(&self) -> Range<u64> {
        self.file.row_group_rows(self.index)
    }

    pub(crate) fn out_of_order(&self, row: u64, key: String, previous: String) -> Error {
        Error::KeyOrder {
            path: self.file.path().to_owned(),
            row: row - self.file.rows().start,
            key,
            previous,
        }
    }
}
