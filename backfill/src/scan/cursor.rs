//! One side's rows of a key range as runs of unique, strictly ascending keys.

use std::cmp::Ordering;
use std::ops::Range;

use super::marks::Marks;
use crate::error::Result;
use crate::keys::{Ascent, KeyedGroups, Keys};

/// Rows that were read together. Each key is there once.
#[derive(Debug, Clone)]
pub(super) struct Run<M> {
    pub(super) keys: Keys,
    pub(super) marks: M,
    /// Keys that more rows have, ascending. Their mark is their first row's.
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
pub(super) struct Cursor<'a, G: KeyedGroups> {
    groups: &'a G,
    rest: Range<u64>,
    ahead: Option<Run<G::Load>>,
}

impl<'a, G: KeyedGroups<Load: Marks>> Cursor<'a, G> {
    /// A cursor over these rows. No key may have rows both inside and outside.
    pub(super) fn new(groups: &'a G, rows: Range<u64>) -> Self {
        Self { groups, rest: rows, ahead: None }
    }

    /// The next run, or nothing after the last.
    pub(super) fn next(&mut self) -> Result<Option<Run<G::Load>>> {
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
                    return Err(self.groups.out_of_order(row, next.keys.display(0), run.keys.display(last)));
                }
            }
        }
        Ok(Some(run))
    }

    fn load(&mut self) -> Result<Option<Run<G::Load>>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let index = self.groups.at_row(self.rest.start);
        let (group_start, group_end) = (self.groups.starts()[index], self.groups.starts()[index + 1]);
        let first_row = self.rest.start;
        let start = (first_row - group_start) as usize;
        let rows = (group_end.min(self.rest.end) - first_row) as usize;
        let is_whole = rows as u64 == group_end - group_start;
        let (keys, marks) = if is_whole { self.groups.load(index)? } else { self.groups.load_part(index)? };
        self.rest.start += rows as u64;
        let (keys, marks) = (keys.slice(start, rows), marks.slice(start, rows));
        match keys.ascent() {
            Ascent::Strict => {
                let (duplicated, rows) = (Vec::new(), RunRows::From(first_row));
                Ok(Some(Run { rows_read: keys.rows() as u64, keys, marks, duplicated, rows }))
            }
            Ascent::WithDuplicates => Run::of_unique(&keys, &marks, first_row, self.groups.names()).map(Some),
            Ascent::BrokenAt(row) => {
                let row_number = first_row + row as u64;
                Err(self.groups.out_of_order(row_number, keys.display(row), keys.display(row - 1)))
            }
        }
    }
}

impl<M: Marks> Run<M> {
    pub(super) fn len(&self) -> usize {
        self.keys.rows()
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
    fn of_unique(keys: &Keys, marks: &M, first_row: u64, names: &[String]) -> Result<Self> {
        let mut kept: Vec<u32> = Vec::with_capacity(keys.rows());
        let mut duplicated = Vec::new();
        for row in 0..keys.rows() {
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
            marks: marks.take(&kept),
            duplicated,
            rows_read: keys.rows() as u64,
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
            marks: self.marks.slice(1, rows),
            duplicated: self.duplicated.into_iter().filter_map(|index| index.checked_sub(1)).collect(),
            rows_read: self.rows_read,
            rows: match self.rows {
                RunRows::From(first) => RunRows::From(first + 1),
                RunRows::At(rows) => RunRows::At(rows[1..].to_vec()),
            },
        }
    }
}
