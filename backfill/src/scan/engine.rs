//! Threads: who compares which range, and how findings get out in key order.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use super::plan::KeyRange;
use super::{Progress, ScanOptions};
use crate::error::{Error, Result};
use crate::findings::{FindingKind, FindingsWriter, ScanSummary};

/// Findings that a thread hands over together, where its range has as many.
const MESSAGE_FINDINGS: usize = 4 * 1024;

/// Messages that wait per thread for the ranges before them to be written. All findings of a usual range should find room: a
/// thread whose do not stands still until the range before its own is done.
const WAITING_MESSAGES_MAX: usize = 16;

/// How two sides are compared, range by range.
pub(super) trait Comparer: Sync {
    /// What a thread keeps from range to range.
    type Worker;

    /// What a thread begins with.
    fn worker(&self) -> Self::Worker;

    /// Compares the rows of a range. `found` gets findings in key order, `compared` numbers of rows now and then; both end
    /// the comparison by an error.
    fn compare(
        &self,
        worker: &mut Self::Worker,
        range: &KeyRange,
        found: &mut dyn FnMut(Found) -> Result<()>,
        compared: &dyn Fn(u64) -> Result<()>,
    ) -> Result<()>;
}

/// Findings as they are written, and the kind of each.
pub(super) struct Found {
    pub(super) kinds: Vec<FindingKind>,
    pub(super) rows: RecordBatch,
}

pub(super) type ProgressFn<'a> = &'a (dyn Fn(Progress) -> ControlFlow<()> + Sync);

/// Compares the ranges, which follow one another, and writes what is found.
pub(super) fn run<C: Comparer>(
    comparer: &C,
    ranges: &[KeyRange],
    threads: usize,
    meter: &Meter<'_>,
    options: &ScanOptions,
    writer: &mut FindingsWriter,
    summary: &mut ScanSummary,
) -> Result<()> {
    let job = Job { comparer, ranges, meter };
    thread::scope(|scope| {
        let receivers: Vec<Receiver<Message>> = (0..threads.min(ranges.len()))
            .map(|worker| {
                let (sender, receiver) = sync_channel(WAITING_MESSAGES_MAX);
                let job = &job;
                scope.spawn(move || work(job, worker, threads, &sender));
                receiver
            })
            .collect();
        let drained = drain(&job, &receivers, options.checkpoint_every, writer, summary);
        job.meter.stop.store(drained.is_err(), Ordering::Relaxed);
        drained
    })
}

/// What all threads share.
struct Job<'a, C> {
    comparer: &'a C,
    ranges: &'a [KeyRange],
    meter: &'a Meter<'a>,
}

/// What a worker sends to the writer.
enum Message {
    Findings(Vec<Found>),
    RangeDone,
    Failed(Box<Error>),
}

/// Takes every `threads`-th range. Which thread takes which is fixed, and each has a channel of its own: whoever is
/// ahead waits for the writer, whoever the writer waits for never does.
fn work<C: Comparer>(job: &Job<'_, C>, number: usize, threads: usize, sender: &SyncSender<Message>) {
    let mut worker = job.comparer.worker();
    for range in job.ranges.iter().skip(number).step_by(threads) {
        let (mut gathered, mut count) = (Vec::new(), 0);
        let mut found = |found: Found| {
            count += found.kinds.len();
            gathered.push(found);
            if count < MESSAGE_FINDINGS {
                return Ok(());
            }
            count = 0;
            // Without a receiver another range has failed, and nobody reads this error.
            sender.send(Message::Findings(std::mem::take(&mut gathered))).map_err(|_| job.meter.cancelled())
        };
        let compared = job.comparer.compare(&mut worker, range, &mut found, &|rows| job.meter.add(rows));
        if compared.is_ok() && !gathered.is_empty() && sender.send(Message::Findings(gathered)).is_err() {
            return;
        }
        let message = match compared {
            Ok(()) => Message::RangeDone,
            Err(error) => Message::Failed(Box::new(error)),
        };
        let failed = matches!(message, Message::Failed(_));
        if sender.send(message).is_err() || failed {
            return;
        }
    }
}

/// Writes what the threads find, range by range, and now and then down to where everything is written.
fn drain<C>(
    job: &Job<'_, C>,
    receivers: &[Receiver<Message>],
    checkpoint_every: Duration,
    writer: &mut FindingsWriter,
    summary: &mut ScanSummary,
) -> Result<()> {
    let mut checkpointed = Instant::now();
    for (receiver, range) in receivers.iter().cycle().zip(job.ranges) {
        loop {
            match receiver.recv() {
                Ok(Message::Findings(found)) => {
                    for found in found {
                        count(&found.kinds, summary);
                        writer.write(&found.rows)?;
                    }
                }
                Ok(Message::RangeDone) => break,
                Ok(Message::Failed(error)) => return Err(*error),
                Err(_) => return Err(Error::WorkerLost),
            }
        }
        if checkpointed.elapsed() >= checkpoint_every {
            writer.checkpoint(range.end(), summary)?;
            checkpointed = Instant::now();
        }
    }
    Ok(())
}

pub(super) fn count(kinds: &[FindingKind], summary: &mut ScanSummary) {
    for kind in kinds {
        match kind {
            FindingKind::Missing => summary.missing += 1,
            FindingKind::Mismatched => summary.mismatched += 1,
            FindingKind::Orphaned => summary.orphaned += 1,
            FindingKind::Duplicated => summary.duplicated += 1,
        }
    }
}

/// Counts compared rows for all threads, and stops them.
pub(super) struct Meter<'a> {
    rows_done: AtomicU64,
    rows_total: u64,
    stop: AtomicBool,
    progress: ProgressFn<'a>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(rows_total: u64, rows_done: u64, progress: ProgressFn<'a>) -> Self {
        Self { rows_done: AtomicU64::new(rows_done), rows_total, stop: AtomicBool::new(false), progress }
    }

    pub(super) fn add(&self, rows: u64) -> Result<()> {
        let rows_done = self.rows_done.fetch_add(rows, Ordering::Relaxed) + rows;
        let progress = Progress { rows_done, rows_total: self.rows_total };
        if (self.progress)(progress).is_break() {
            self.stop.store(true, Ordering::Relaxed);
        }
        if self.stop.load(Ordering::Relaxed) { Err(self.cancelled()) } else { Ok(()) }
    }

    /// Ends the other threads: one has failed.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn cancelled(&self) -> Error {
        Error::Cancelled { rows_done: self.rows_done.load(Ordering::Relaxed), rows_total: self.rows_total }
    }
}
