//! Rows of a snapshot by key, for keys that come in order.

use arrow::datatypes::DataType;

use crate::error::Result;
use crate::keys::{KeyedGroups, Keys};
use crate::snapshot::{Hashes, RowGroups, Snapshot};

/// Finds rows by key. Each key must be greater than the one before: a snapshot is gone through once.
pub(super) struct Finder<'a> {
    groups: RowGroups<'a>,
    held: Option<Held>,
}

/// Where a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) row: u64,
    pub(super) hash: u64,
}

/// The row group that the last key was looked up in.
struct Held {
    group: usize,
    keys: Keys,
    hashes: Hashes,
}

impl<'a> Finder<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, key_types: &'a [DataType]) -> Self {
        Self { groups: RowGroups::new(snapshot, key_types), held: None }
    }

    /// The first row that has the key at `row`, or nothing where there is none.
    pub(super) fn find(&mut self, keys: &Keys, row: usize) -> Result<Option<Place>> {
        loop {
            let next = match &self.held {
                None => 0,
                Some(held) => {
                    let within = held.keys.lower_bound(keys, row);
                    if within < held.keys.rows() {
                        let here = held.keys.compare(within, keys, row).is_eq();
                        let place = Place {
                            row: self.groups.starts()[held.group] + within as u64,
                            hash: held.hashes.get(within),
                        };
                        return Ok(here.then_some(place));
                    }
                    held.group + 1
                }
            };
            let Some(group) = self.group_from(next, keys, row) else { return Ok(None) };
            let (keys, hashes) = self.groups.load(group)?;
            self.held = Some(Held { group, keys, hashes });
        }
    }

    /// The row group from `next` on where the key may be: not one after which another begins with a key that is not
    /// greater, where the footers say so.
    fn group_from(&self, next: usize, keys: &Keys, row: usize) -> Option<usize> {
        let begins_before = |group: usize| {
            let first = self.groups.known_first_key(group);
            first.is_some_and(|first| first.compare(0, keys, row).is_le())
        };
        let skipped = (next + 1..self.groups.len()).take_while(|&group| begins_before(group)).count();
        (next < self.groups.len()).then_some(next + skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{KEY_SHAPES, Thinned};

    #[test]
    fn keys_of_all_shapes_are_found_and_absent_ones_are_not() {
        for shape in 0..KEY_SHAPES {
            let Thinned { whole, thin, types, .. } = &Thinned::new(shape, 3);
            let groups = RowGroups::new(whole, types);
            for step in [1, 2, 5, 17] {
                let (mut in_whole, mut in_thin) = (Finder::new(whole, types), Finder::new(thin, types));
                for row in (0..60_usize).step_by(step) {
                    let (keys, hashes) = groups.load(row / 4).unwrap();
                    let place = in_whole.find(&keys, row % 4).unwrap();
                    let expected = Place { row: row as u64, hash: hashes.get(row % 4) };
                    assert_eq!(place, Some(expected), "shape {shape}, step {step}");
                    let place = in_thin.find(&keys, row % 4).unwrap();
                    let expected = (row % 3 == 0).then_some(row as u64 / 3);
                    assert_eq!(place.map(|place| place.row), expected, "shape {shape}, step {step}");
                }
            }
        }
    }
}
