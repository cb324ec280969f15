//! One side: its ranges, read and written at the same time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use crossfade_migration_core::phase::Side;
use crossfade_migration_core::rows::{ConsistentRead, ScopeRange};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};

use super::BATCHES_IN_FLIGHT;
use super::limits::{Limits, Pace};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::Meter;
use crate::snapshot::{RangesWriter, SnapshotHeader, WrittenRange};

/// How often a range is begun again after its connection was lost. One loss is an accident; three in one range are a
/// server that cannot carry it.
const LOSSES_MAX: u32 = 3;

/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(100);

/// The longest sleep of a thread that keeps to its pace: so soon does it see that it should stop.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// What everyone who works on a side shares.
pub(super) struct Job {
    read: Arc<dyn ConsistentRead>,
    side: Side,
    ranges: Vec<ScopeRange>,
    writer: RangesWriter,
    /// Rows that are written, or on their way into a file.
    rows: AtomicU64,
    pace: Option<Arc<Pace>>,
    /// One for each connection. A range gives its back when it is read, so that the next one is read while it is
    /// brought to the disk.
    connections: Semaphore,
    stop: Cancel,
}

impl Job {
    pub(super) fn begin(
        read: Arc<dyn ConsistentRead>,
        side: Side,
        ranges: Vec<ScopeRange>,
        folder: PathBuf,
        header: SnapshotHeader,
        connections: usize,
        limits: &Limits,
    ) -> Result<Job> {
        let writer = RangesWriter::create(folder, header)?;
        let (pace, stop) = (limits.pace.clone(), Cancel::new());
        let connections = Semaphore::new(connections);
        Ok(Job { read, side, ranges, writer, rows: AtomicU64::new(0), pace, connections, stop })
    }
}

/// Exports all ranges of a side, and makes a snapshot of them.
pub(super) async fn run(job: Job, limits: &Limits, meter: &Meter<'_>, cancel: &Cancel) -> Result<()> {
    let job = Arc::new(job);
    let mut tasks = JoinSet::new();
    let outcome = all_ranges(&job, &mut tasks, limits, meter, cancel).await;
    // Whoever still works must be gone before the folder is anyone else's.
    job.stop.cancel();
    while tasks.join_next().await.is_some() {}
    let written = outcome?;
    let job = Arc::into_inner(job).ok_or(Error::WorkerLost)?;
    let finishing = spawn_blocking(move || job.writer.finish(written).map(|_| ()));
    finishing.await.map_err(|_| Error::WorkerLost)?
}

type Tasks = JoinSet<Result<(usize, WrittenRange)>>;

async fn all_ranges(
    job: &Arc<Job>,
    tasks: &mut Tasks,
    limits: &Limits,
    meter: &Meter<'_>,
    cancel: &Cancel,
) -> Result<Vec<WrittenRange>> {
    let mut waiting = 0..job.ranges.len();
    let mut written: Vec<Option<WrittenRange>> = waiting.clone().map(|_| None).collect();
    // Twice as many as are read at a time: the others are being finished, or wait for a connection.
    for number in waiting.by_ref().take(2 * job.connections.available_permits()) {
        tasks.spawn(export_range(job.clone(), number));
    }
    let too_old = tokio::time::sleep(limits.age_max.saturating_sub(limits.opened.elapsed()));
    tokio::pin!(too_old);
    let mut tick = tokio::time::interval(TICK);
    loop {
        let done = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Error::Stopped { what: "export" }),
            () = &mut too_old => return Err(Error::SnapshotTooOld { age_max: limits.age_max }),
            done = tasks.join_next() => done,
            _ = tick.tick() => {
                meter.at(job.rows.load(Ordering::Relaxed));
                continue;
            }
        };
        let Some(done) = done else { break };
        let (number, range) = done.map_err(|_| Error::WorkerLost)??;
        written[number] = Some(range);
        if let Some(number) = waiting.next() {
            tasks.spawn(export_range(job.clone(), number));
        }
    }
    meter.at(job.rows.load(Ordering::Relaxed));
    written.into_iter().collect::<Option<_>>().ok_or(Error::WorkerLost)
}

/// Exports one range, from its beginning after each loss of a connection, as long as the moment is held.
async fn export_range(job: Arc<Job>, number: usize) -> Result<(usize, WrittenRange)> {
    let mut losses = 0;
    loop {
        let error = match attempt(&job, number).await {
            Err(Error::Core(error)) => error,
            outcome => return Ok((number, outcome?)),
        };
        // Whatever it failed of: a range that was begun after the moment was gone is told that there is no such
        // snapshot, and has lost no connection.
        if let Err(source) = job.read.hold().await {
            return Err(Error::SnapshotLost { source: Box::new(source) });
        }
        losses += 1;
        if !error.is_connection_lost() || losses > LOSSES_MAX {
            return Err(error.into());
        }
        tracing::warn!(range = number, %error, "a connection was lost; its range is read again");
    }
}

async fn attempt(job: &Arc<Job>, number: usize) -> Result<WrittenRange> {
    let connection = job.connections.acquire().await.map_err(|_| Error::WorkerLost)?;
    let (rows, at_writer) = mpsc::channel(BATCHES_IN_FLIGHT);
    // Told apart from a reader that failed: only a whole range is finished.
    let (whole, is_whole) = oneshot::channel();
    let writing = spawn_blocking({
        let job = job.clone();
        move || write_range(&job, number, at_writer, is_whole)
    });
    let outcome = tokio::select! {
        biased;
        () = job.stop.cancelled() => Err(Error::Stopped { what: "export" }),
        read = job.read.read(job.side, &job.ranges[number], rows) => read.map_err(Error::from),
    };
    drop(connection);
    if outcome.is_ok() {
        // A writer that is gone has an error to tell, which comes out below.
        let _ = whole.send(());
    } else {
        drop(whole);
    }
    // A writer's error is the cause of the reader's end, not the other way round.
    let written = writing.await.map_err(|_| Error::WorkerLost)??;
    outcome?;
    written.ok_or(Error::WorkerLost)
}

/// Writes a range on a thread of its own; nothing comes of it unless the reader says that it was whole.
fn write_range(
    job: &Job,
    number: usize,
    mut batches: mpsc::Receiver<RecordBatch>,
    is_whole: oneshot::Receiver<()>,
) -> Result<Option<WrittenRange>> {
    let mut writer = job.writer.range(number);
    let mut rows = 0;
    while let Some(batch) = batches.blocking_recv() {
        if let Some(pace) = &job.pace {
            let bytes = batch.get_array_memory_size() as u64;
            wait_until(pace.take(bytes, Instant::now()), &job.stop);
        }
        writer.write(&batch)?;
        rows += batch.num_rows() as u64;
        job.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
    }
    if is_whole.blocking_recv().is_ok() {
        return writer.finish().map(Some);
    }
    job.rows.fetch_sub(rows, Ordering::Relaxed);
    Ok(None)
}

/// Sleeps, which slows the reader down too, since few batches are ever in flight.
fn wait_until(due: Instant, stop: &Cancel) {
    while !stop.is_cancelled() {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(SLEEP_MAX));
    }
}
