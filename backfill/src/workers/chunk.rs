//! One chunk in one worker's hands, from the lease to its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossfade_migration_core::Error as CoreError;

use super::pace::rest_after;
use super::{ChunkWork, Crew, Pace};
use crate::error::{Error, Result};
use crate::queue::{Change, Checkpoint, Ending, Job, JobState, LEASE_TTL, Lease, RENEW_EVERY, Request};

/// How a worker's hands came off a chunk.
enum Outcome {
    /// All of it is done.
    Done,
    /// It is to stop, or the lease is somebody else's.
    Stopped,
    Failed(Error),
}

/// What a failure means for those who are not this batch.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// The migration has moved on: the job can never go on.
    Stale,
    /// What the job works on cannot be read: the job can never go on.
    Unreadable,
    /// This process cannot go on, others may.
    Process,
    /// The chunk failed, and may be tried again after a while.
    Chunk,
    /// The chunk would fail again.
    ChunkForGood,
}

/// A chunk's worker and its lease's renewal share this.
struct Hand {
    checkpoint: Mutex<Checkpoint>,
    stop: AtomicBool,
}

impl<W: ChunkWork> Crew<'_, W> {
    /// Works on a chunk, and gives it up.
    ///
    /// # Errors
    /// What keeps this process from taking another one.
    pub(super) async fn chunk(&self, lease: Lease, pace: &mut Pace) -> Result<()> {
        let hand = Hand { checkpoint: Mutex::new(lease.checkpoint), stop: AtomicBool::new(false) };
        let outcome = tokio::select! {
            outcome = self.work(&lease, &hand, pace) => outcome,
            // It ends only when the lease is lost or cannot be renewed any more.
            outcome = self.renew(&lease, &hand) => outcome,
        };
        let checkpoint = hand.checkpoint();
        let end = |ending: Ending| {
            let lease = &lease;
            async move { self.retried(|| self.migration.queue.end(lease, checkpoint, &ending)).await.map(|_| ()) }
        };
        let error = match outcome {
            Outcome::Done => return end(Ending::Done).await,
            Outcome::Stopped => return end(Ending::Released).await,
            Outcome::Failed(error) => error,
        };
        let failure = classify(&error);
        tracing::warn!(job = lease.job.0, chunk = lease.number, %error, ?failure, "a chunk could not be done");
        match failure {
            Failure::Stale | Failure::Unreadable => {
                let error = self.explained(error);
                let change = Change::Fail(error.to_string());
                self.retried(|| self.migration.queue.change(lease.job, change.clone())).await?;
                end(Ending::Released).await?;
                Err(error)
            }
            Failure::Process => {
                // Best effort: where the database is gone, the lease runs out or is seen to be a dead process's.
                let _ = self.migration.queue.end(&lease, checkpoint, &Ending::Released).await;
                Err(error)
            }
            Failure::Chunk => end(Ending::Failed { error: error.to_string() }).await,
            Failure::ChunkForGood => end(Ending::GivenUp { error: error.to_string() }).await,
        }
    }

    async fn work(&self, lease: &Lease, hand: &Hand, pace: &mut Pace) -> Outcome {
        let work = Arc::clone(&self.work);
        let number = lease.number;
        let items = match tokio::task::spawn_blocking(move || work.load(number)).await {
            Ok(Ok(items)) => items,
            Ok(Err(error)) => return Outcome::Failed(error),
            Err(_) => return Outcome::Failed(Error::WorkerLost),
        };
        let begun = usize::try_from(lease.checkpoint.keys_done).unwrap_or(usize::MAX).min(items.len());
        let mut rest = &items[begun..];
        while !rest.is_empty() {
            if hand.is_stopped() || self.is_stopping() {
                return Outcome::Stopped;
            }
            let tunables = self.tunables();
            let batch =
                &rest[..pace.keys(tunables.batch_keys_max as usize).min(self.work.run(rest)).min(rest.len())];
            let started = Instant::now();
            match self.retried(|| self.work.batch(batch)).await {
                Ok(done) => {
                    let worked = started.elapsed();
                    hand.add(Checkpoint { keys_done: batch.len() as u64, ..done });
                    self.meter.add(batch.len() as u64);
                    pace.took(batch.len(), worked, tunables.batch_time());
                    rest = &rest[batch.len()..];
                    self.sleep(rest_after(worked, tunables.work_percent)).await;
                }
                // One of the keys is at fault: find out which.
                Err(error) if classify(&error) == Failure::ChunkForGood && batch.len() > 1 => {
                    pace.failed(batch.len());
                }
                Err(Error::Core(source)) if classify_core(&source) == Failure::ChunkForGood => {
                    let key = self.work.key(&batch[0]);
                    return Outcome::Failed(Error::Key { action: W::ACTION, key, source: Box::new(source) });
                }
                Err(error) => return Outcome::Failed(error),
            }
        }
        Outcome::Done
    }

    /// Keeps the lease until it cannot be kept.
    async fn renew(&self, lease: &Lease, hand: &Hand) -> Outcome {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            let before = Instant::now();
            match self.migration.queue.renew(lease, hand.checkpoint(), LEASE_TTL).await {
                Ok(Some(job)) => {
                    renewed = before;
                    self.heard(&job);
                    if !goes_on(&job) {
                        hand.stop.store(true, Ordering::Relaxed);
                    }
                }
                Ok(None) => return Outcome::Stopped,
                // Half of the lease is left for whoever takes over to be sure that nobody works here any more.
                Err(error) if renewed.elapsed() > LEASE_TTL / 2 => return Outcome::Failed(error),
                Err(_) => {}
            }
        }
    }

    fn explained(&self, error: Error) -> Error {
        match error {
            Error::Core(CoreError::StaleEpoch { migration, expected, found }) => {
                Error::MovedOn { migration, what: self.stage_name(), from: expected.0, to: found.0 }
            }
            error => error,
        }
    }

    fn stage_name(&self) -> &'static str {
        W::ACTION
    }
}

impl Hand {
    fn checkpoint(&self) -> Checkpoint {
        *self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, done: Checkpoint) {
        *self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner) += done;
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn goes_on(job: &Job) -> bool {
    job.requested == Request::Run && matches!(job.state, JobState::Running | JobState::Paused)
}

fn classify(error: &Error) -> Failure {
    match error {
        Error::Core(error) => classify_core(error),
        Error::Key { .. } => Failure::ChunkForGood,
        // Findings and work files: they do not mend themselves.
        error if error.is_bad_input() => Failure::Unreadable,
        _ => Failure::Process,
    }
}

fn classify_core(error: &CoreError) -> Failure {
    match error {
        CoreError::StaleEpoch { .. } => Failure::Stale,
        error if error.is_retryable() => Failure::Chunk,
        CoreError::Database { source: sqlx::Error::Database(error), .. } => {
            let code = error.code();
            if code.is_some_and(|code| is_out_of_order(&code)) {
                Failure::Process
            } else {
                Failure::ChunkForGood
            }
        }
        CoreError::Database { .. } => Failure::Process,
        CoreError::Value { .. } | CoreError::Key { .. } | CoreError::Query { .. } => Failure::ChunkForGood,
        _ => Failure::Process,
    }
}

/// Whether a code is about the database, rather than about the rows that it was given.
///
/// Postgres: lost connections (class 08), no connections, memory or space (53), shutting down (57P). SQLite, by the low
/// byte: no rights, read-only, I/O error, corrupt, full, cannot open, no database.
fn is_out_of_order(code: &str) -> bool {
    if code.len() == 5 {
        return ["08", "53", "57P"].iter().any(|class| code.starts_with(class));
    }
    matches!(code.parse::<i32>().map(|code| code & 0xff), Ok(3 | 8 | 10 | 11 | 13 | 14 | 26))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(source: sqlx::Error) -> Error {
        Error::database("copying")(source)
    }

    #[test]
    fn a_lost_connection_is_no_fault_of_the_chunk() {
        let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(classify(&database(sqlx::Error::Io(lost))), Failure::Process);
        assert_eq!(classify(&database(sqlx::Error::PoolTimedOut)), Failure::Process);
    }

    #[test]
    fn several_renewals_may_fail_before_a_worker_stops() {
        assert!(RENEW_EVERY * 4 < LEASE_TTL / 2);
    }

    #[test]
    fn a_database_out_of_order_is_told_from_rows_that_it_refuses() {
        for code in ["57P01", "53100", "08006", "13", "10", "522"] {
            assert!(is_out_of_order(code), "{code}");
        }
        for code in ["23505", "22001", "1299", "19", "787"] {
            assert!(!is_out_of_order(code), "{code}");
        }
    }

    #[test]
    fn a_passed_epoch_ends_the_job_though_its_error_is_retryable() {
        use crossfade_migration_core::phase::Epoch;
        let stale = CoreError::StaleEpoch { migration: "m".into(), expected: Epoch(1), found: Epoch(2) };
        assert!(stale.is_retryable());
        let stale = Error::Core(stale);
        assert_eq!(classify(&stale), Failure::Stale);
        assert!(!stale.is_retryable());
    }

    #[test]
    fn what_cannot_be_read_ends_the_job() {
        let corrupt = Error::FileCorrupt { path: "x".into(), row_group: None, detail: "torn".into() };
        assert_eq!(classify(&corrupt), Failure::Unreadable);
        let absent = Error::FileAbsent { path: "x".into() };
        assert_eq!(classify(&absent), Failure::Unreadable);
    }
}
