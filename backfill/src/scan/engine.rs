//! Threads: who compares which range, and how findings get out in key order.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use super::plan::{KeyRange, Plan};
use super::{Progress, ScanOptions};
use crate::error::{Error, Result};
use crate::findings::{Cut, FindingKind, FindingsWriter, ScanSummary};
use crate::keys::KeyedGroups;

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
pub(super) fn run<C: Comparer, G: KeyedGroups>(
    comparer: &C,
    plan: &Plan<'_, G>,
    threads: usize,
    meter: &Meter<'_>,
    options: &ScanOptions,
    writer: &mut FindingsWriter,
    summary: &mut ScanSummary,
) -> Result<()> {
    let job = Job { comparer, plan, meter, next: Mutex::new(plan.numbers().start) };
    thread::scope(|scope| {
        let (taker, takers) = channel();
        let receivers: Vec<Receiver<Message>> = (0..threads.min(plan.numbers().len()))
            .map(|number| {
                let (sender, receiver) = sync_channel(WAITING_MESSAGES_MAX);
                let (job, taker) = (&job, taker.clone());
                scope.spawn(move || work(job, number, &taker, &sender));
                receiver
            })
            .collect();
        drop(taker);
        let drained = drain(&job, &takers, &receivers, options.checkpoint_every, writer, summary);
        job.meter.stop.store(drained.is_err(), Ordering::Relaxed);
        drained
    })
}

/// What all threads share.
struct Job<'a, C, G> {
    comparer: &'a C,
    plan: &'a Plan<'a, G>,
    meter: &'a Meter<'a>,
    /// The range that is taken next.
    next: Mutex<usize>,
}

impl<C, G: KeyedGroups> Job<'_, C, G> {
    /// Takes the next range, and tells the writer who has it: under one lock, so that the writer is told in the order of the
    /// ranges.
    fn take(&self, number: usize, taker: &Sender<usize>) -> Option<usize> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = *next;
        if taken == self.plan.numbers().end || taker.send(number).is_err() {
            return None;
        }
        *next += 1;
        Some(taken)
    }
}

/// What a worker sends to the writer.
enum Message {
    Findings(Vec<Found>),
    RangeDone(Cut),
    Failed(Box<Error>),
}

/// Takes one range after the other. Each thread has a channel of its own, in which its ranges come in their order: whoever is
/// ahead waits for the writer, whoever the writer waits for never does.
fn work<C: Comparer, G: KeyedGroups>(
    job: &Job<'_, C, G>,
    number: usize,
    taker: &Sender<usize>,
    sender: &SyncSender<Message>,
) {
    let mut worker = job.comparer.worker();
    while let Some(range) = job.take(number, taker) {
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
        let compared = job.plan.range(range).and_then(|range| {
            job.comparer.compare(&mut worker, &range, &mut found, &|rows| job.meter.add(rows))?;
            Ok(range.end())
        });
        if compared.is_ok() && !gathered.is_empty() && sender.send(Message::Findings(gathered)).is_err() {
            return;
        }
        let message = match compared {
            Ok(end) => Message::RangeDone(end),
            Err(error) => Message::Failed(Box::new(error)),
        };
        let failed = matches!(message, Message::Failed(_));
        if sender.send(message).is_err() || failed {
            return;
        }
    }
}

/// Writes what the threads find, range by range, and now and then down to where everything is written.
fn drain<C, G: KeyedGroups>(
    job: &Job<'_, C, G>,
    takers: &Receiver<usize>,
    receivers: &[Receiver<Message>],
    checkpoint_every: Duration,
    writer: &mut FindingsWriter,
    summary: &mut ScanSummary,
) -> Result<()> {
    let mut checkpointed = Instant::now();
    for _ in job.plan.numbers() {
        let receiver = &receivers[takers.recv().map_err(|_| Error::WorkerLost)?];
        let end = loop {
            match receiver.recv() {
                Ok(Message::Findings(found)) => {
                    for found in found {
                        count(&found.kinds, summary);
                        writer.write(&found.rows)?;
                    }
                }
                Ok(Message::RangeDone(end)) => break end,
                Ok(Message::Failed(error)) => return Err(*error),
                Err(_) => return Err(Error::WorkerLost),
            }
        };
        if checkpointed.elapsed() >= checkpoint_every {
            writer.checkpoint(end, summary)?;
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
