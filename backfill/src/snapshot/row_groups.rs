//! A snapshot as its row groups, and where a key is in them.

use std::ops::Range;

use arrow::array::{Array, ArrayRef};
use arrow::compute::{cast, concat};
use arrow::datatypes::DataType;

use super::{DataFile, Hashes, Snapshot};
use crate::error::{Error, Result};
use crate::keys::{Ascent, KeyedGroups, Keys};

/// A row group of a snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowGroup<'a> {
    pub(crate) file: &'a DataFile,
    pub(crate) index: usize,
}

/// A snapshot as its row groups, in order.
pub(crate) struct RowGroups<'a> {
    groups: Vec<RowGroup<'a>>,
    /// Where each row group begins, and then where the last one ends.
    starts: Vec<u64>,
    names: &'a [String],
    /// The types that both sides' key columns are brought to.
    key_types: &'a [DataType],
    /// The first key of each row group, where the footers say it.
    first_keys: Option<Keys>,
}

impl<'a> RowGroups<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, key_types: &'a [DataType]) -> Self {
        let files = snapshot.files();
        let groups: Vec<RowGroup<'_>> = files
            .iter()
            .flat_map(|file| (0..file.row_groups()).map(move |index| RowGroup { file, index }))
            .collect();
        let starts = groups.iter().map(|group| group.rows().start).chain([snapshot.rows()]).collect();
        let names = &snapshot.manifest().key;
        let first_keys = first_keys(files, names, key_types);
        Self { groups, starts, names, key_types, first_keys }
    }

    pub(crate) fn scan_bytes_max(&self) -> u64 {
        self.groups.iter().map(|group| group.file.scan_bytes(group.index)).max().unwrap_or(0)
    }

    pub(crate) fn keys(&self, index: usize) -> Result<Keys> {
        Ok(self.load(index)?.0)
    }

    /// The rows that have the only key in `key`.
    pub(crate) fn rows_of_key(&self, key: &Keys) -> Result<Range<u64>> {
        let start = self.lower_bound(key, self.len() / 2)?;
        let mut end = start;
        for index in self.at_row(start)..self.len() {
            let keys = self.keys(index)?;
            let first = (end - self.starts[index]) as usize;
            let equal = (first..keys.rows()).take_while(|&row| keys.compare(row, key, 0).is_eq()).count();
            end += equal as u64;
            if first + equal < keys.rows() {
                break;
            }
        }
        Ok(start..end)
    }
}

impl KeyedGroups for RowGroups<'_> {
    type Load = Hashes;

    fn starts(&self) -> &[u64] {
        &self.starts
    }

    fn names(&self) -> &[String] {
        self.names
    }

    fn known_first_key(&self, group: usize) -> Option<Keys> {
        self.first_keys.as_ref().map(|keys| keys.slice(group, 1))
    }

    fn load(&self, group: usize) -> Result<(Keys, Hashes)> {
        let group = self.groups[group];
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

    fn out_of_order(&self, row: u64, key: String, previous: String) -> Error {
        let file = self.groups[self.at_row(row)].file;
        Error::KeyOrder { path: file.path().to_owned(), row: row - file.rows().start, key, previous }
    }
}

/// The first keys of all row groups out of the files' statistics: the smallest value of a key that is one column. A
/// composite key has none there, and a long text only its beginning.
fn first_keys(files: &[DataFile], names: &[String], key_types: &[DataType]) -> Option<Keys> {
    let [key_type] = key_types else { return None };
    let smallest: Vec<ArrayRef> = files.iter().map(DataFile::smallest_keys).collect::<Option<_>>()?;
    let smallest: Vec<&dyn Array> = smallest.iter().map(AsRef::as_ref).collect();
    let smallest = cast(&concat(&smallest).ok()?, key_type).ok()?;
    if smallest.null_count() > 0 {
        return None;
    }
    let rows = smallest.len();
    let keys = Keys::new(vec![smallest], rows, names).ok()?;
    (!matches!(keys.ascent(), Ascent::BrokenAt(_))).then_some(keys)
}

impl RowGroup<'_> {
    pub(crate) fn rows(&self) -> Range<u64> {
        self.file.row_group_rows(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{KEY_SHAPES, Thinned};

    /// By statistics or by reading: each key is found where it is, and what is between two keys before the second.
    #[test]
    fn keys_of_all_shapes_are_found_from_any_guess() {
        for shape in 0..KEY_SHAPES {
            let Thinned { whole, thin, types, .. } = &Thinned::new(shape, 2);
            let (old, new) = (RowGroups::new(whole, types), RowGroups::new(thin, types));
            assert_eq!(old.first_keys.is_some(), types.len() == 1, "shape {shape}");

            let keys: Vec<Keys> = (0..old.len()).map(|group| old.keys(group).unwrap()).collect();
            for (row, guess) in (0..60_usize).flat_map(|row| [0, 3, 7, 99].map(|guess| (row, guess))) {
                let key = keys[row / 4].slice(row % 4, 1);
                assert_eq!(old.lower_bound(&key, guess).unwrap(), row as u64, "shape {shape}");
                assert_eq!(new.lower_bound(&key, guess).unwrap(), row.div_ceil(2) as u64, "shape {shape}");
            }
        }
    }
}
