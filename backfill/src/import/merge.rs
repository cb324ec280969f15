//! Merges sorted runs into one.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;

use super::sort::keys_of;
use crate::error::{Error, Result};
use crate::keys::Keys;

/// Rows per batch, read and written. A merge holds two such batches of each run.
pub(super) const BATCH_ROWS: usize = 8 * 1024;

/// Merges sorted runs of batches.
pub(super) struct Merge<'a, R> {
    runs: Vec<R>,
    key: &'a [String],
    heap: BinaryHeap<Reverse<Head>>,
    /// The batches that rows in `picked` are in.
    held: Vec<RecordBatch>,
    picked: Vec<(usize, usize)>,
}

/// The next row of a run.
struct Head {
    keys: Arc<Keys>,
    row: usize,
    run: usize,
    /// Which of the held batches it is in.
    batch: usize,
}

impl<'a, R: Iterator<Item = Result<RecordBatch>>> Merge<'a, R> {
    pub(super) fn new(runs: Vec<R>, key: &'a [String]) -> Result<Self> {
        let mut merge = Self { runs, key, heap: BinaryHeap::new(), held: Vec::new(), picked: Vec::new() };
        for run in 0..merge.runs.len() {
            merge.advance(run)?;
        }
        Ok(merge)
    }

    /// Gives out all rows in key order; of equal keys those of earlier runs first.
    pub(super) fn run(mut self, out: &mut impl FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        while let Some(Reverse(head)) = self.heap.pop() {
            self.picked.push((head.batch, head.row));
            if head.row + 1 < head.keys.rows() {
                self.heap.push(Reverse(Head { row: head.row + 1, ..head }));
            } else {
                self.advance(head.run)?;
            }
            if self.picked.len() == BATCH_ROWS {
                out(self.take_picked()?)?;
            }
        }
        if self.picked.is_empty() { Ok(()) } else { out(self.take_picked()?) }
    }

    /// Takes the run's next batch in.
    fn advance(&mut self, run: usize) -> Result<()> {
        for batch in self.runs[run].by_ref() {
            let batch = batch?;
            if batch.num_rows() > 0 {
                let keys = Arc::new(keys_of(&batch, self.key)?);
                self.heap.push(Reverse(Head { keys, row: 0, run, batch: self.held.len() }));
                self.held.push(batch);
                break;
            }
        }
        Ok(())
    }

    fn take_picked(&mut self) -> Result<RecordBatch> {
        let held: Vec<&RecordBatch> = self.held.iter().collect();
        let rows = interleave_record_batch(&held, &self.picked).map_err(Error::arrow("merge sorted rows"))?;
        self.picked.clear();
        self.drop_finished();
        Ok(rows)
    }

    /// Lets go of batches that no run is in any more.
    fn drop_finished(&mut self) {
        let mut heads: Vec<Head> =
            std::mem::take(&mut self.heap).into_iter().map(|Reverse(head)| head).collect();
        let mut held = Vec::with_capacity(heads.len());
        for head in &mut heads {
            held.push(self.held[head.batch].clone());
            head.batch = held.len() - 1;
        }
        self.held = held;
        self.heap = heads.into_iter().map(Reverse).collect();
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.keys.compare(self.row, &other.keys, other.row).then(self.run.cmp(&other.run))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}
