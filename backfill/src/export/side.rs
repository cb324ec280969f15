//! Both sides: their ranges, read and written at the same time.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossfade_migration_core::phase::Side;
use crossfade_migration_core::rows::{ConsistentRead, Horizon, Kept, ScopeRange};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};

use super::lanes::{Lane, Lanes};
use super::limits::{Limits, Pace};
use super::since::EarlierSide;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Meter, Progress, Stage};
use crate::snapshot::{Origin, RangeWriter, RangesWriter, SnapshotHeader, WrittenRange};

/// How often a range is begun again after its connection was lost. One loss is an accident; three in one range are a
/// server that cannot carry it.
const LOSSES_MAX: u32 = 3;

/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(100);

/// Batches between reader and writer of a range, which take turns: the one that is written, while the next is filled.
const BATCHES_AHEAD: usize = 1;

/// How long a reader sleeps when it has read all that has arrived. A socket of this machine holds some 200 kB, which a server needs
/// about twice as long for; where it is quicker, or far away with larger buffers, there is always something to read.
const REST: Duration = Duration::from_millis(1);

/// One side, on its way into a folder.
pub(super) struct Job {
    plan: SidePlan,
    writer: RangesWriter,
    /// Rows that are written, or on their way into a file.
    rows: AtomicU64,
    /// How many ranges were taken over.
    taken_over: AtomicUsize,
    /// How many of these an interrupted export had left.
    resumed: AtomicUsize,
    team: Team,
}

/// How many ranges of a side were taken over, and how many of these from an interrupted export.
pub(super) struct Counts {
    pub(super) taken_over: usize,
    pub(super) resumed: usize,
}

/// How one side is read.
pub(super) struct SidePlan {
    pub(super) read: Arc<dyn ConsistentRead>,
    pub(super) side: Side,
    pub(super) stage: Stage,
    /// About how many rows it will have.
    pub(super) estimate: u64,
    pub(super) ranges: Vec<ScopeRange>,
    /// What ranges may be taken over from; these are its ranges then.
    pub(super) earlier: Option<EarlierSide>,
    /// What a later export may hold against its own.
    pub(super) horizon: Option<Horizon>,
}

/// What everyone who works on an export shares.
#[derive(Clone)]
pub(super) struct Team {
    pace: Option<Arc<Pace>>,
    /// One for each connection. A range gives its back when it is read, so that the next one is read while it is
    /// brought to the disk.
    connections: Arc<Semaphore>,
    /// The connections themselves, between two ranges.
    lanes: Arc<Lanes>,
    stop: Cancel,
}

impl Team {
    pub(super) fn new(connections: usize, limits: &Limits) -> Team {
        let connections = Arc::new(Semaphore::new(connections));
        Team { pace: limits.pace.clone(), connections, lanes: Arc::default(), stop: Cancel::new() }
    }
}

impl Job {
    pub(super) fn begin(plan: SidePlan, folder: PathBuf, header: SnapshotHeader, team: &Team) -> Result<Job> {
        let writer = match &plan.horizon {
            Some(horizon) => {
                let kept = plan.earlier.as_ref().map(EarlierSide::resumable).unwrap_or_default();
                RangesWriter::create_recorded(folder, header, &plan.ranges, horizon.clone(), &kept)?
            }
            // No later run could tell what has changed since.
            None => RangesWriter::create(folder, header)?,
        };
        let (rows, taken_over, resumed) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(Job { plan, writer, rows, taken_over, resumed, team: team.clone() })
    }

    /// Makes a snapshot of the ranges.
    fn finish(&self, written: Vec<WrittenRange>) -> Result<Counts> {
        let SidePlan { ranges, horizon, .. } = &self.plan;
        self.writer.finish(written, Origin { ranges: ranges.clone(), horizon: horizon.clone() })?;
        let (taken_over, resumed) = (&self.taken_over, &self.resumed);
        Ok(Counts {
            taken_over: taken_over.load(Ordering::Relaxed),
            resumed: resumed.load(Ordering::Relaxed),
        })
    }
}

/// Exports all ranges of these sides one after the other, and makes a snapshot of each. The connections do not wait for
/// each other between two sides: at the end of one the next is begun.
pub(super) async fn run(
    jobs: Vec<Job>,
    team: &Team,
    limits: &Limits,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Vec<Counts>> {
    let jobs: Vec<Arc<Job>> = jobs.into_iter().map(Arc::new).collect();
    let mut tasks = JoinSet::new();
    let outcome = all_ranges(&jobs, &mut tasks, team, limits, progress, cancel).await;
    // Whoever still works must be gone before the folder is anyone else's.
    team.stop.cancel();
    while tasks.join_next().await.is_some() {}
    let lanes = team.lanes.clone();
    spawn_blocking(move || lanes.close()).await.map_err(|_| Error::WorkerLost)?;
    outcome
}

/// The number of a side and of a range in it.
type Place = (usize, usize);

type Tasks = JoinSet<Result<(Place, WrittenRange)>>;

async fn all_ranges(
    jobs: &[Arc<Job>],
    tasks: &mut Tasks,
    team: &Team,
    limits: &Limits,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Vec<Counts>> {
    let mut written: Vec<Vec<Option<WrittenRange>>> =
        jobs.iter().map(|job| job.plan.ranges.iter().map(|_| None).collect()).collect();
    let mut waiting = jobs
        .iter()
        .enumerate()
        .flat_map(|(side, job)| (0..job.plan.ranges.len()).map(move |number| (side, number)))
        .map(|place| export_range(jobs[place.0].clone(), place));
    // Twice as many as are read at a time: the others are being finished, or wait for a connection.
    for range in waiting.by_ref().take(2 * team.connections.available_permits()) {
        tasks.spawn(range);
    }
    let too_old = tokio::time::sleep(limits.age_max.saturating_sub(limits.opened.elapsed()));
    tokio::pin!(too_old);
    let mut tick = tokio::time::interval(TICK);
    let mut counts = Vec::with_capacity(jobs.len());
    for (side, job) in jobs.iter().enumerate() {
        let meter = Meter::estimated(progress, job.plan.stage, job.plan.estimate);
        while written[side].iter().any(Option::is_none) {
            let done = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Error::Stopped { what: "export" }),
                () = &mut too_old => return Err(Error::SnapshotTooOld { age_max: limits.age_max }),
                done = tasks.join_next() => done,
                _ = tick.tick() => {
                    meter.taken_over(job.taken_over.load(Ordering::Relaxed));
                    meter.at(job.rows.load(Ordering::Relaxed));
                    continue;
                }
            };
            let ((side, number), range) = done.ok_or(Error::WorkerLost)?.map_err(|_| Error::WorkerLost)??;
            written[side][number] = Some(range);
            if let Some(range) = waiting.next() {
                tasks.spawn(range);
            }
        }
        meter.taken_over(job.taken_over.load(Ordering::Relaxed));
        meter.at(job.rows.load(Ordering::Relaxed));
        if cancel.is_cancelled() {
            return Err(Error::Stopped { what: "export" });
        }
        let ranges = written[side].drain(..).collect::<Option<_>>().ok_or(Error::WorkerLost)?;
        let finishing = spawn_blocking({
            let job = job.clone();
            move || job.finish(ranges)
        });
        counts.push(finishing.await.map_err(|_| Error::WorkerLost)??);
        meter.finish();
    }
    Ok(counts)
}

/// Exports one range, from its beginning after each loss of a connection, as long as the moment is held.
async fn export_range(job: Arc<Job>, place: Place) -> Result<(Place, WrittenRange)> {
    let (_, number) = place;
    let mut losses = 0;
    loop {
        let error = match attempt(&job, number).await {
            Err(Error::Core(error)) => error,
            outcome => return Ok((place, outcome?)),
        };
        // Whatever it failed of: a range that was begun after the moment was gone is told that there is no such
        // snapshot, and has lost no connection.
        if let Err(source) = job.plan.read.hold().await {
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
    let connections = job.team.connections.clone();
    let mut connection = connections.clone().acquire_owned().await.map_err(|_| Error::WorkerLost)?;
    if let Some(earlier) = &job.plan.earlier {
        let is_unchanged = tokio::select! {
            biased;
            () = job.team.stop.cancelled() => return Err(Error::Stopped { what: "export" }),
            is_unchanged = earlier.is_unchanged(job.plan.read.as_ref(), number) => is_unchanged?,
        };
        if is_unchanged {
            drop(connection);
            if let Some(range) = take_over(job.clone(), number).await? {
                return Ok(range);
            }
            connection = connections.acquire_owned().await.map_err(|_| Error::WorkerLost)?;
        }
    }
    let job = job.clone();
    spawn_blocking(move || bring(&job, number, connection)).await.map_err(|_| Error::WorkerLost)?
}

/// Takes the files of a range over from what was exported earlier, if they are still there.
async fn take_over(job: Arc<Job>, number: usize) -> Result<Option<WrittenRange>> {
    let taking = spawn_blocking(move || {
        let earlier = job.plan.earlier.as_ref().ok_or(Error::WorkerLost)?;
        let Some(taken) = earlier.take_over(number, job.writer.folder())? else { return Ok(None) };
        job.writer.record(number, &taken.range)?;
        job.rows.fetch_add(taken.range.rows(), Ordering::Relaxed);
        job.taken_over.fetch_add(1, Ordering::Relaxed);
        job.resumed.fetch_add(usize::from(taken.is_resumed), Ordering::Relaxed);
        Ok(Some(taken.range))
    });
    taking.await.map_err(|_| Error::WorkerLost)?
}

/// Reads a range and writes it, both on this thread: rows are written while the server fills the connection's buffers.
fn bring(job: &Job, number: usize, connection: OwnedSemaphorePermit) -> Result<WrittenRange> {
    if let Some(earlier) = &job.plan.earlier {
        earlier.forget(number, job.writer.folder())?;
    }
    let Lane { runtime, mut kept } = job.team.lanes.take()?;
    let rows = AtomicU64::new(0);
    let outcome = runtime.block_on(async {
        tokio::select! {
            biased;
            () = job.team.stop.cancelled() => Err(Error::Stopped { what: "export" }),
            whole = read_and_write(job, number, &mut kept, &rows) => whole,
        }
    });
    let lane = Lane { runtime, kept };
    match &outcome {
        Ok(_) if job.plan.earlier.is_none() => job.team.lanes.give_back(lane),
        // Looking ranges up takes connections too: none is kept then, so that there are never more than were asked for.
        Ok(_) => lane.close(),
        // What is left of the connection goes with it.
        Err(_) => drop(lane),
    }
    drop(connection);
    let written = outcome.and_then(RangeWriter::finish).and_then(|range| {
        job.writer.record(number, &range)?;
        Ok(range)
    });
    if written.is_err() {
        job.rows.fetch_sub(rows.into_inner(), Ordering::Relaxed);
    }
    written
}

/// All rows of a range, in a writer that has yet to be finished.
async fn read_and_write(job: &Job, number: usize, kept: &mut Kept, rows: &AtomicU64) -> Result<RangeWriter> {
    let (to_writer, mut batches) = mpsc::channel(BATCHES_AHEAD);
    let waiting = to_writer.downgrade();
    let reading = job.plan.read.read_next(kept, job.plan.side, &job.plan.ranges[number], to_writer);
    let writing = async move {
        let mut writer = job.writer.range(number);
        while let Some(batch) = batches.recv().await {
            if let Some(pace) = &job.team.pace {
                let bytes = batch.get_array_memory_size() as u64;
                tokio::time::sleep_until(pace.take(bytes, Instant::now()).into()).await;
            }
            let count = batch.num_rows() as u64;
            rows.fetch_add(count, Ordering::Relaxed);
            job.rows.fetch_add(count, Ordering::Relaxed);
            writer.write(&batch)?;
        }
        Ok::<_, Error>(writer)
    };
    // Not before rows flow, whose number says so, and not while some wait to be written.
    let is_idle = || {
        let to_writer = waiting.upgrade();
        rows.load(Ordering::Relaxed) > 0 && to_writer.is_some_and(|to| to.capacity() == BATCHES_AHEAD)
    };
    let reading = rested(reading, is_idle);
    let (written, read) = futures::join!(writing, reading);
    // A writer's error is the cause of the reader's end, not the other way round.
    let writer = written?;
    read?;
    Ok(writer)
}

/// Lets the thread sleep for a moment, where it has nothing else to do, whenever all that has arrived is read: a server wakes a
/// reader that waits for each few kilobytes, which takes both of them longer than it takes to read several such pieces at once.
async fn rested<F: Future>(reading: F, is_idle: impl Fn() -> bool) -> F::Output {
    let mut reading = pin!(reading);
    poll_fn(|context| {
        let polled = reading.as_mut().poll(context);
        if polled.is_pending() && is_idle() {
            std::thread::sleep(REST);
        }
        polled
    })
    .await
}
