//! Workers: take chunks of a job, and work them off in small transactions until there are none.
//!
//! Owns the loop: leases and their renewal, the size of transactions, retries, pauses, and what becomes of a chunk that
//! fails. What is done to a batch of keys is its callers' ([`ChunkWork`]).

mod chunk;
mod pace;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::migration::Migration;
use crate::progress::{Meter, Progress, Stage, Wait};
use crate::queue::{Checkpoint, Claim, Job, JobId, JobState, LEASE_TTL, Owner, Tunables};

pub(crate) use pace::{Pace, jitter};

/// How often a worker that found no chunk asks again: soon enough that a resumed job goes on at once for a person, at
/// the cost of a query.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How often a transaction that lost a race is tried again before its chunk is given back: about four seconds in all,
/// which outlasts a burst of deadlocks. Longer trouble is the queue's, whose backoff lets other chunks pass.
const RETRIES_MAX: u32 = 10;

/// What is done to the keys of a chunk.
///
/// # Contract
/// A chunk always loads the same items in the same order: a chunk that was half done is gone on with in its middle.
/// A batch is one transaction, and idempotent.
#[async_trait]
pub(crate) trait ChunkWork: Send + Sync + 'static {
    /// A key, and what is to be done with it.
    type Item: Send + Sync + 'static;

    /// What it does, as a verb, for messages.
    const ACTION: &'static str;

    /// The items of a chunk. May block.
    fn load(&self, number: u32) -> Result<Vec<Self::Item>>;

    /// How many items from the front may go into one transaction; at least one.
    fn run(&self, items: &[Self::Item]) -> usize;

    /// The key of an item, for messages.
    fn key(&self, item: &Self::Item) -> String;

    /// Does its work on a batch, in one transaction. The keys are counted by the caller.
    async fn batch(&self, items: &[Self::Item]) -> Result<Checkpoint>;
}

/// Works on a job until it is over or this process is to stop, with as many workers as the job is tuned to.
///
/// # Errors
/// [`Error::JobFailed`], [`Error::JobCancelled`], [`Error::Stopped`], [`Error::MovedOn`]; or what kept this process
/// from going on, in which case another one may go on with the job.
pub(crate) async fn work_off<W: ChunkWork>(
    migration: &Migration,
    job: Job,
    work: W,
    stage: Stage,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Job> {
    let id = job.id;
    let crew = Crew {
        migration,
        job: id,
        work: Arc::new(work),
        meter: Meter::new(progress, stage, job.done.keys_done, Some(job.keys)),
        tunables: Mutex::new(job.tunables),
        cancel,
        halt: Cancel::new(),
        chunk_ended: Notify::new(),
    };
    let mut workers = FuturesUnordered::new();
    let mut manned = BTreeSet::new();
    let mut failure = None;
    loop {
        // Also where somebody has tuned the job to more workers meanwhile.
        if !crew.is_stopping() {
            for index in
                (0..crew.tunables().workers).filter(|index| !manned.contains(index)).collect::<Vec<_>>()
            {
                manned.insert(index);
                let worker = crew.worker(index);
                workers.push(async move { (index, worker.await) });
            }
        }
        tokio::select! {
            ended = workers.next() => match ended {
                Some((index, Left::TunedDown)) => {
                    manned.remove(&index);
                }
                Some((_, Left::Over)) | None => break,
                Some((_, Left::Failed(error))) => {
                    // The others give their chunks back after the batch in hand, for somebody else to go on with.
                    crew.halt.cancel();
                    failure.get_or_insert(error);
                }
            },
            () = tokio::time::sleep(ASK_EVERY) => {}
        }
    }
    while let Some((_, left)) = workers.next().await {
        if let Left::Failed(error) = left {
            failure.get_or_insert(error);
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    crew.outcome().await
}

/// How a worker came to leave.
enum Left {
    Over,
    TunedDown,
    Failed(Error),
}

/// The workers of one process on one job.
struct Crew<'a, W> {
    migration: &'a Migration,
    job: JobId,
    work: Arc<W>,
    meter: Meter<'a>,
    tunables: Mutex<Tunables>,
    cancel: &'a Cancel,
    /// One of the workers cannot go on, so that none should.
    halt: Cancel,
    /// Told to the workers that found no free chunk: it may have been the last, or be free again.
    chunk_ended: Notify,
}

impl<W: ChunkWork> Crew<'_, W> {
    async fn worker(&self, index: u32) -> Left {
        let owner = Owner::new();
        let mut pace = Pace::new();
        loop {
            // Heard from here on: a chunk that ends while the claim is under way must not be missed.
            let mut chunk_ended = pin!(self.chunk_ended.notified());
            chunk_ended.as_mut().enable();
            if self.is_stopping() {
                return Left::Over;
            }
            if index >= self.tunables().workers {
                return Left::TunedDown;
            }
            let claim = match self.retried(|| self.migration.queue.claim(self.job, &owner, LEASE_TTL)).await {
                Ok(claim) => claim,
                Err(error) => return Left::Failed(error),
            };
            match claim {
                Claim::Over(_) => return Left::Over,
                Claim::Wait(waiting) => {
                    self.meter.wait(Wait::Queue(waiting));
                    tokio::select! {
                        () = self.sleep(ASK_EVERY) => {}
                        () = chunk_ended => {}
                    }
                }
                Claim::Leased(lease, job) => {
                    self.heard(&job);
                    let ended = self.chunk(lease, &mut pace).await;
                    self.chunk_ended.notify_waiters();
                    if let Err(error) = ended {
                        return Left::Failed(error);
                    }
                }
            }
        }
    }

    async fn outcome(&self) -> Result<Job> {
        let job = self.retried(|| self.migration.queue.job(self.job)).await?;
        let migration = self.migration.name().to_owned();
        match job.state {
            JobState::Done => {
                self.meter.at_least(job.keys);
                self.meter.finish();
                Ok(job)
            }
            JobState::Failed => {
                let error = job.error.unwrap_or_else(|| "nobody wrote down why".to_owned());
                Err(Error::JobFailed { migration, job: job.id, error })
            }
            JobState::Cancelled => Err(Error::JobCancelled { migration, job: job.id }),
            JobState::Running | JobState::Paused => Err(Error::Stopped { what: job.kind.as_str() }),
        }
    }

    /// Takes in what others have done, and how the job is tuned now.
    fn heard(&self, job: &Job) {
        *self.tunables.lock().unwrap_or_else(PoisonError::into_inner) = job.tunables;
        self.meter.at_least(job.done.keys_done);
    }

    fn tunables(&self) -> Tunables {
        *self.tunables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.cancel.is_cancelled() || self.halt.is_cancelled()
    }

    /// Sleeps, unless it is time to stop.
    async fn sleep(&self, duration: Duration) {
        if duration.is_zero() {
            // The timer's shortest sleep is a millisecond.
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.cancel.cancelled() => {}
            () = self.halt.cancelled() => {}
        }
    }

    /// Runs a transaction again while it only lost a race.
    async fn retried<T, F>(&self, mut transaction: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut attempt = 0;
        loop {
            match transaction().await {
                Err(error) if error.is_retryable() && attempt < RETRIES_MAX => {
                    self.meter.wait(Wait::Retry { error: error.to_string() });
                    // Not cut short by a cancellation: it is a second at most, and what is tried may be giving back a
                    // chunk.
                    tokio::time::sleep(jitter(attempt)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }
}
