//! One side's rows of a key range as runs of unique, strictly ascending keys.

use std::cmp::Ordering;
use std::ops::Range;

use crate::error::Result;
use crate::keys::{Ascent, Keys};
use crate::snapshot::{Hashes, RowGroups};

/// Rows that were read together. Each key is there once.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) keys: Keys,
    pub(super) hashes: Hashes,
    /// Keys that more rows have, ascending. Their hash is their first row's.
    duplicated: Vec<usize>,
    rows: RunRows,
    /// How many rows of the snapshot it stands for.
    rows_read: u64,
}

/// Where a run's keys are in the snapshot.
#[derive(Debug, Clone)]
enum RunRows {
    From(u64),
    At(Vec<u64>),
}

/// One side's rows of a key range as runs of unique, strictly ascending keys.
pub(super) struct Cursor<'a> {
    groups: &'a RowGroups<'a>,
    rest: Range<u64>,
    ahead: Option<Run>,
}

impl<'a> Cursor<'a> {
    /// A cursor over these rows. No key may have rows both inside and outside.
    pub(super) fn new(groups: &'a RowGroups<'a>, rows: Range<u64>) -> Self {
        Self { groups, rest: rows, ahead: None }
    }

    /// The next run, or nothing after the last.
    pub(super) fn next(&mut self) -> Result<Option<Run>> {
        let Some(mut run) = (match self.ahead.take() {
            Some(run) => Some(run),
            None => self.load()?,
        }) else {
            return Ok(None);
        };
        // The last key of a run may go on in the next, so the next has to be there before the run is given out.
        while let Some(next) = self.load()? {
            let last = run.len() - 1;
            match run.keys.compare(last, &next.keys, 0) {
                Ordering::Less => {
                    self.ahead = Some(next);
                    break;
                }
                Ordering::Equal => {
                    run.mark_duplicated(last);
                    if next.len() == 1 {
                        run.rows_read += next.rows_read;
                    } else {
                        self.ahead = Some(next.without_first());
                        break;
                    }
                }
                Ordering::Greater => {
                    let row = next.row(0);
                    let group = self.groups.group(self.groups.at_row(row));
                    return Err(group.out_of_order(row, next.keys.display(0), run.keys.display(last)));
                }
            }
        }
        Ok(Some(run))
    }

    fn load(&mut self) -> Result<Option<Run>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let index = self.groups.at_row(self.rest.start);
        let group = self.groups.group(index);
        let (keys, hashes) = self.groups.load(index)?;
        let first_row = self.rest.start;
        let start = (first_row - group.rows().start) as usize;
        let rows = (group.rows().end.min(self.rest.end) - first_row) as usize;
        self.rest.start += rows as u64;
        let (keys, hashes) = (keys.slice(start, rows), hashes.slice(start, rows));
        match keys.ascent() {
            Ascent::Strict => {
                let (duplicated, rows) = (Vec::new(), RunRows::From(first_row));
                Ok(Some(Run { rows_read: keys.rows() as u64, keys, hashes, duplicated, rows }))
            }
            Ascent::WithDuplicates => {
                Run::of_unique(&keys, &hashes, first_row, self.groups.names()).map(Some)
            }
            Ascent::BrokenAt(row) => {
                Err(group.out_of_order(first_row + row as u64, keys.display(row), keys.display(row - 1)))
            }
        }
    }
}

impl Run {
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn rows_read(&self) -> u64 {
        self.rows_read
    }

    /// Where the key at `index` is in the snapshot.
    pub(super) fn row(&self, index: usize) -> u64 {
        match &self.rows {
            RunRows::From(first) => first + index as u64,
            RunRows::At(rows) => rows[index],
        }
    }

    /// The first key from `index` on that more than one row has, or the end of the run.
    pub(super) fn next_duplicated(&self, index: usize) -> usize {
        let next = self.duplicated.partition_point(|duplicated| *duplicated < index);
        self.duplicated.get(next).copied().unwrap_or(self.len())
    }

    pub(super) fn is_duplicated(&self, index: usize) -> bool {
        !self.duplicated.is_empty() && self.duplicated.binary_search(&index).is_ok()
    }

    /// Keeps the first row of each key, and which had more.
    fn of_unique(keys: &Keys, hashes: &Hashes, first_row: u64, names: &[String]) -> Result<Self> {
        let mut kept: Vec<u32> = Vec::with_capacity(hashes.len());
        let mut duplicated = Vec::new();
        for row in 0..hashes.len() {
            if row > 0 && keys.compare(row - 1, keys, row).is_eq() {
                let last = kept.len() - 1;
                if duplicated.last() != Some(&last) {
                    duplicated.push(last);
                }
            } else {
                kept.push(row as u32);
            }
        }
        Ok(Self {
            keys: keys.take(&kept, names)?,
            hashes: kept.iter().map(|row| hashes.get(*row as usize)).collect(),
            duplicated,
            rows_read: hashes.len() as u64,
            rows: RunRows::At(kept.iter().map(|row| first_row + u64::from(*row)).collect()),
        })
    }

    fn mark_duplicated(&mut self, index: usize) {
        if self.duplicated.last() != Some(&index) {
            self.duplicated.push(index);
        }
    }

    fn without_first(self) -> Self {
        let rows = self.len() - 1;
        Self {
            keys: self.keys.slice(1, rows),
            hashes: self.hashes.slice(1, rows),
            duplicated: self.duplicated.into_iter().filter_map(|index| index.checked_sub(1)).collect(),
            rows_read: self.rows_read,
            rows: match self.rows {
                RunRows::From(first) => RunRows::From(first + 1),
                RunRows::At(rows) => RunRows::At(rows[1..].to_vec()),
            },
        }
    }
}
