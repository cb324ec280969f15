//! Which columns of mismatched rows differ.
//!
//! A row's hash is the sum of its columns' hashes, so the difference of two rows' hashes is the sum of the differences of
//! their columns' hashes. Columns are read cheapest first, and only for rows whose difference is not yet explained: where
//! a small column explains it, the large ones are never read. A difference that all columns together do not
//! explain means that a snapshot is damaged.

use crate::error::{Error, Result};
use crate::snapshot::{PageMetadata, Side, Snapshot, SnapshotPair};

use super::merge::Mismatch;

/// Explains mismatches of one pair. Each thread has its own.
pub(super) struct Explainer<'a> {
    pair: &'a SnapshotPair,
    /// Columns outside the key, cheapest first.
    columns: Vec<usize>,
    old: Pages<'a>,
    new: Pages<'a>,
}

/// The columns outside the key, in the order in which they are read: fewest stored bytes first.
pub(super) fn columns_by_cost(pair: &SnapshotPair) -> Vec<usize> {
    let bytes = |position: usize| -> u64 {
        [Side::Old, Side::New]
            .into_iter()
            .flat_map(|side| pair.side(side).files())
            .map(|file| file.column_bytes(position))
            .sum()
    };
    let key = &pair.old().manifest().key;
    let fields = pair.old().schema().fields();
    let mut columns: Vec<usize> =
        (0..fields.len()).filter(|&position| !key.contains(fields[position].name())).collect();
    columns.sort_by_cached_key(|&position| (bytes(position), position));
    columns
}

impl<'a> Explainer<'a> {
    pub(super) fn new(pair: &'a SnapshotPair, columns: Vec<usize>) -> Self {
        Self { pair, columns, old: Pages::new(pair.old()), new: Pages::new(pair.new_side()) }
    }

    /// For each mismatch the positions of the columns that differ, ascending. Mismatches come in key order.
    pub(super) fn explain(&mut self, mismatches: &[Mismatch]) -> Result<Vec<Vec<usize>>> {
        let mut differing = vec![Vec::new(); mismatches.len()];
        let mut open: Vec<Open> = mismatches
            .iter()
            .enumerate()
            .map(|(index, mismatch)| Open { index, mismatch: *mismatch })
            .collect();
        for &position in &self.columns {
            if open.is_empty() {
                break;
            }
            let old =
                self.old.column_hashes(position, open.iter().map(|open| open.mismatch.old_row).collect())?;
            let new =
                self.new.column_hashes(position, open.iter().map(|open| open.mismatch.new_row).collect())?;
            for ((open, old), new) in open.iter_mut().zip(old).zip(new) {
                if old != new {
                    differing[open.index].push(position);
                    let rest = &mut open.mismatch.hash_difference;
                    *rest = rest.wrapping_sub(old.wrapping_sub(new));
                }
            }
            open.retain(|open| open.mismatch.hash_difference != 0);
        }
        if let Some(open) = open.first() {
            let Mismatch { old_row, new_row, .. } = open.mismatch;
            let detail = format!(
                "the hash of row {old_row} of old or of row {new_row} of new is not that of its columns"
            );
            return Err(Error::corrupt(self.pair.folder(), None)(detail));
        }
        for columns in &mut differing {
            columns.sort_unstable();
        }
        Ok(differing)
    }
}

/// A mismatch that is not yet explained.
struct Open {
    index: usize,
    mismatch: Mismatch,
}

/// One side's columns, by row. Holds the places of one file's pages: rows come in key order, so that each file is
/// gone through once.
struct Pages<'a> {
    snapshot: &'a Snapshot,
    file: Option<(usize, PageMetadata)>,
}

impl<'a> Pages<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, file: None }
    }

    fn column_hashes(&mut self, position: usize, rows: Vec<u64>) -> Result<Vec<u64>> {
        let files = self.snapshot.files();
        let mut hashes = Vec::with_capacity(rows.len());
        let mut rest = rows.as_slice();
        while let Some(&row) = rest.first() {
            let index = files.partition_point(|file| file.rows().end <= row);
            let file = &files[index];
            let (here, later) = rest.split_at(rest.partition_point(|row| *row < file.rows().end));
            let pages = match &mut self.file {
                Some((held, pages)) if *held == index => pages,
                other => &mut other.insert((index, file.page_metadata()?)).1,
            };
            hashes.extend(file.column_hashes_at(pages, position, here)?);
            rest = later;
        }
        Ok(hashes)
    }
}
