//! The offline scan: which rows are missing, mismatched, orphaned or duplicated.
//!
//! Both snapshots are in key order, so a scan is a merge. It is cut into contiguous key ranges, which threads take
//! one after the other; each reads only keys and row hashes, and then, for the rows whose hashes differ, as many other columns
//! as it takes to say which. What is found leaves in key order through bounded channels, so that memory does not
//! depend on how large the snapshots are or how much is found, and the findings do not depend on the threads.
//!
//! Dumps that other tools wrote are opened in `dumps`, and compared by `ordered` or `unordered`, on what `columns` makes of theirs.
//!
//! Files, in the order in which rows pass through them: `room` (how much memory that takes), `plan` (key ranges), `shared_groups` (what two of them read), `cursor` (runs of unique, ascending keys
//! of one side), `merge` (differences of two cursors), `explain` (which columns differ), `engine` (threads). Where another
//! engine has compared, its answer becomes findings in `conclude`, which looks rows up through `find`.

mod columns;
mod conclude;
mod cursor;
mod dumps;
mod engine;
mod explain;
mod find;
mod hashed;
mod marks;
mod merge;
mod ordered;
mod plan;
mod room;
mod rows;
mod shared_groups;
mod sums;
mod unordered;
mod value_hash;
mod watch;

use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

pub use conclude::{Comparison, conclude};
pub use dumps::{Compared, DumpOrder, DumpOrigin, DumpTable, DumpTables, Dumps};
pub use watch::{watch, watch_dumps};

use crate::error::{Error, Result};
use crate::findings::ScanSummary;
use crate::snapshot::SnapshotPair;
use dumps::DumpPair;

/// Scope keys per chunk: work for a copier of about a second, and few enough rows to hold.
const CHUNK_KEYS_MAX: NonZeroU64 = NonZeroU64::new(10_000).expect("not zero");

/// Memory for runs of keys and hashes. It is far above what our own snapshots need with a few dozen threads.
const MEMORY_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Memory for rows in no order: enough for tens of millions without a disk.
const UNORDERED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// A killed scan loses this much at most. What it costs is a few small files.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// How a scan runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScanOptions {
    /// How many threads compare. Does not change the result.
    pub threads: NonZeroUsize,
    /// How many scope keys a chunk of findings has at most.
    pub chunk_keys_max: NonZeroU64,
    /// How many bytes the runs in memory may take together; binds the number of threads. One thread always runs.
    pub memory_bytes_max: u64,
    /// How many bytes a scan of unordered dumps may hold; what does not fit waits on the disk, beside the findings.
    pub unordered_bytes_max: u64,
    /// How often it is made durable how far the scan is, for a scan that is killed to go on from.
    pub checkpoint_every: Duration,
}

impl Default for ScanOptions {
    /// All of the machine's threads, chunks of 10,000 scope keys, 512 MiB for what is ordered and 1 GiB for what is not.
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            chunk_keys_max: CHUNK_KEYS_MAX,
            memory_bytes_max: MEMORY_BYTES_MAX,
            unordered_bytes_max: UNORDERED_BYTES_MAX,
            checkpoint_every: CHECKPOINT_EVERY,
        }
    }
}

impl ScanOptions {
    /// How many threads there may be that hold so many bytes each.
    fn affordable_threads(&self, thread_bytes: u64) -> usize {
        let affordable = usize::try_from(self.memory_bytes_max / thread_bytes.max(1)).unwrap_or(usize::MAX);
        self.threads.get().min(affordable).max(1)
    }
}

/// How far a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Rows of both sides that have been compared.
    pub rows_done: u64,
    /// Rows of both sides.
    pub rows_total: u64,
}

/// Compares the two snapshots and writes what it finds into `findings`, a folder that is created if it is not there.
///
/// `progress` is called from the threads, a few times per second and thread; [`ControlFlow::Break`] cancels the scan.
///
/// # Errors
///
/// [`Error::FindingsPresent`] if the folder holds a finished scan; [`Error::FileCorrupt`] or [`Error::KeyOrder`] if a
/// snapshot is not what was written; [`Error::Cancelled`]; [`Error::Io`] or [`Error::DiskFull`]. After an error there
/// is no summary in the folder; the next scan of the same goes on from the last checkpoint, and any other removes what is there.
///
/// [`Error::FindingsPresent`]: crate::Error::FindingsPresent
/// [`Error::FileCorrupt`]: crate::Error::FileCorrupt
/// [`Error::KeyOrder`]: crate::Error::KeyOrder
/// [`Error::Cancelled`]: crate::Error::Cancelled
/// [`Error::Io`]: crate::Error::Io
/// [`Error::DiskFull`]: crate::Error::DiskFull
pub fn scan(
    pair: &SnapshotPair,
    findings: impl Into<PathBuf>,
    options: &ScanOptions,
    progress: &(dyn Fn(Progress) -> ControlFlow<()> + Sync),
) -> Result<ScanSummary> {
    hashed::run(pair, findings.into(), options, progress)
}

/// Compares two dumps that other tools wrote, and writes what it finds like [`scan`].
///
/// # Errors
///
/// [`Error::DumpAbsent`], [`Error::DumpColumns`] or [`Error::DumpsDiffer`] if there is nothing that could be compared;
/// [`Error::FileCorrupt`], [`Error::DumpKeyNull`] or [`Error::DumpKeyOrder`], naming file and row group;
/// [`Error::FindingsPresent`], [`Error::Cancelled`], [`Error::Io`] or [`Error::DiskFull`] as for [`scan`].
///
/// [`Error::DumpAbsent`]: crate::Error::DumpAbsent
/// [`Error::DumpColumns`]: crate::Error::DumpColumns
/// [`Error::DumpsDiffer`]: crate::Error::DumpsDiffer
/// [`Error::FileCorrupt`]: crate::Error::FileCorrupt
/// [`Error::DumpKeyNull`]: crate::Error::DumpKeyNull
/// [`Error::DumpKeyOrder`]: crate::Error::DumpKeyOrder
/// [`Error::FindingsPresent`]: crate::Error::FindingsPresent
/// [`Error::Cancelled`]: crate::Error::Cancelled
/// [`Error::Io`]: crate::Error::Io
/// [`Error::DiskFull`]: crate::Error::DiskFull
pub fn scan_dumps(
    dumps: &Dumps,
    findings: impl Into<PathBuf>,
    options: &ScanOptions,
    progress: &(dyn Fn(Progress) -> ControlFlow<()> + Sync),
) -> Result<ScanSummary> {
    let (pair, folder) = (DumpPair::open(dumps)?, findings.into());
    if !pair.is_ordered() {
        return unordered::run(&pair, folder, options, progress);
    }
    match ordered::run(&pair, folder.clone(), options, progress) {
        Err(Error::DumpKeyOrder { path, .. }) if dumps.order == DumpOrder::Detect && !pair.claims(&path) => {
            unordered::run(&pair, folder, options, progress)
        }
        Ok(summary) => {
            // Left there by a scan of other dumps, or in another order.
            unordered::forget(&folder)?;
            Ok(summary)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod dump_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unordered_tests;
#[cfg(test)]
mod writer_tests;
