//! Jobs, chunks and leases as values.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crossfade_migration_core::control::MigrationId;
use crossfade_migration_core::phase::Epoch;
use serde::{Deserialize, Serialize};

use super::Owner;

/// The number of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub i64);

/// What a job does with its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Brings over what a scan has found.
    Copy,
    /// Takes moved data out of the old store.
    Cleanup,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Workers may take chunks. It says nothing of whether there are any workers.
    Running,
    /// No chunk is held, and none is given out until somebody resumes it.
    Paused,
    /// Every chunk is done.
    Done,
    /// An operator gave it up.
    Cancelled,
    /// It cannot go on.
    Failed,
}

/// What is wanted of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// To go on.
    Run,
    /// To stop after the batches in flight, until it is resumed.
    Pause,
    /// To stop after the batches in flight, for good.
    Cancel,
}

/// What can be changed while a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunables {
    /// Workers per process.
    pub workers: u32,
    /// How many keys one transaction takes at most.
    pub batch_keys_max: u32,
    /// How long one transaction should take, in milliseconds.
    pub batch_ms: u32,
    /// The share of its time that a worker works, in percent; the rest it leaves to the application.
    pub work_percent: u32,
}

/// A job that is to be.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// The migration.
    pub migration: MigrationId,
    /// Its name, for messages.
    pub name: String,
    /// What it does.
    pub kind: JobKind,
    /// The epoch that its chunks were found at: no batch of it commits at another.
    pub epoch: Epoch,
    /// The folder that its chunks are in.
    pub source: PathBuf,
    /// What makes a folder the same one, wherever it is mounted.
    pub digest: String,
    /// How it runs.
    pub tunables: Tunables,
    /// How many keys each of its chunks has.
    pub chunks: Vec<u64>,
}

/// A job as it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// Where it stands.
    pub state: JobState,
    /// What is wanted of it.
    pub requested: Request,
    /// The epoch that its chunks were found at.
    pub epoch: Epoch,
    /// The folder that its chunks are in, as whoever made the job saw it.
    pub source: PathBuf,
    /// What makes a folder the same one, wherever it is mounted.
    pub digest: String,
    /// How it runs.
    pub tunables: Tunables,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was made, by the database's clock, in ISO 8601 and UTC.
    pub created_at: String,
    /// How many chunks it has.
    pub chunks: u64,
    /// How many of them are done.
    pub chunks_done: u64,
    /// How many of them are held by a worker now.
    pub chunks_leased: u64,
    /// How many of them were given up.
    pub chunks_failed: u64,
    /// How many keys it has.
    pub keys: u64,
    /// What has been done. After a crash up to a second of a worker's work is missing here: it was done, and not
    /// written down.
    #[serde(flatten)]
    pub done: Checkpoint,
}

/// What [`Jobs::open`](super::Jobs::open) did.
#[derive(Debug, Clone)]
pub enum Opened {
    /// The job is new.
    Created(Job),
    /// There was one for the same source, which goes on.
    Resumed(Job),
}

/// How far a chunk, or a job, is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// Keys that are done with.
    pub keys_done: u64,
    /// Rows inserted because they were absent.
    pub copied: u64,
    /// Rows inserted or updated by a repair.
    pub repaired: u64,
    /// Rows removed by a repair.
    pub removed: u64,
    /// Keys whose old data was removed.
    pub retired: u64,
    /// Keys whose old data was left.
    pub kept: u64,
}

/// A claim on a chunk that expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// The chunk's number, from 0.
    pub number: u32,
    /// Who has it.
    pub owner: Owner,
    /// How often it has failed before.
    pub attempts: u32,
    /// How far it is.
    pub checkpoint: Checkpoint,
}

/// What a worker gets that asks for a chunk.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// A chunk.
    Leased(Lease, Job),
    /// Nothing now.
    Wait(Waiting),
    /// Nothing any more.
    Over(Job),
}

/// Why there is no chunk to be had now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// The job is paused.
    Paused,
    /// Other workers hold all that is left.
    Others,
    /// What is left has failed, and is tried again after a while.
    Backoff,
}

/// How a worker gives up a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The chunk is done.
    Done,
    /// It is not, and anybody may go on with it at once.
    Released,
    /// It failed, and may be tried again after a while.
    Failed {
        /// Why.
        error: String,
    },
    /// It failed, and would fail again.
    GivenUp {
        /// Why.
        error: String,
    },
}

impl JobState {
    /// Whether nothing can happen to such a job any more.
    pub fn is_finished(self) -> bool {
        matches!(self, JobState::Done | JobState::Cancelled | JobState::Failed)
    }
}

impl Tunables {
    /// The most workers per process: each holds a connection, and one database is full of fewer.
    pub const WORKERS_MAX: u32 = 64;
    /// The most keys of one transaction: as many as a chunk has.
    pub const BATCH_KEYS_MAX: u32 = 10_000;
    /// The shortest and the longest that a transaction may be asked to take, in milliseconds: below, a commit costs more
    /// than its rows; above, writers and a change of phase would wait for its locks noticeably.
    pub const BATCH_MS: std::ops::RangeInclusive<u32> = 5..=1_000;

    /// The same within what is sensible.
    pub fn clamped(self) -> Tunables {
        Tunables {
            workers: self.workers.clamp(1, Self::WORKERS_MAX),
            batch_keys_max: self.batch_keys_max.clamp(1, Self::BATCH_KEYS_MAX),
            batch_ms: self.batch_ms.clamp(*Self::BATCH_MS.start(), *Self::BATCH_MS.end()),
            work_percent: self.work_percent.clamp(1, 100),
        }
    }

    /// How long one transaction should take.
    pub fn batch_time(&self) -> Duration {
        Duration::from_millis(u64::from(self.batch_ms))
    }
}

impl Default for Tunables {
    /// Two workers keep a database busy while the other commits. 150 ms per transaction: a hundred times what a commit
    /// costs, and less than people notice of a lock.
    fn default() -> Self {
        Tunables { workers: 2, batch_keys_max: Self::BATCH_KEYS_MAX, batch_ms: 150, work_percent: 100 }
    }
}

impl Checkpoint {
    /// Its numbers as they are stored, in the order of the fields.
    pub(super) fn counts(self) -> [i64; 6] {
        let Checkpoint { keys_done, copied, repaired, removed, retired, kept } = self;
        [keys_done, copied, repaired, removed, retired, kept].map(|count| count as i64)
    }
}

impl std::ops::AddAssign for Checkpoint {
    fn add_assign(&mut self, other: Self) {
        self.keys_done += other.keys_done;
        self.copied += other.copied;
        self.repaired += other.repaired;
        self.removed += other.removed;
        self.retired += other.retired;
        self.kept += other.kept;
    }
}

/// Names as they stand in the control database, in JSON and on the command line.
macro_rules! named {
    ($type:ident { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// The name in control records, JSON and messages.
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }

            /// Reads a name that [`Self::as_str`] wrote.
            pub fn parse(text: &str) -> Option<$type> {
                match text { $($name => Some($type::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

named!(JobKind { Copy = "copy", Cleanup = "cleanup" });
named!(JobState { Running = "running", Paused = "paused", Done = "done", Cancelled = "cancelled", Failed = "failed" });
named!(Request { Run = "run", Pause = "pause", Cancel = "cancel" });

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for state in
            [JobState::Running, JobState::Paused, JobState::Done, JobState::Cancelled, JobState::Failed]
        {
            assert_eq!(JobState::parse(state.as_str()), Some(state));
        }
        assert_eq!(Request::parse("stop"), None);
    }

    #[test]
    fn tunables_stay_within_what_is_sensible() {
        let wild =
            Tunables { workers: 0, batch_keys_max: u32::MAX, batch_ms: 0, work_percent: 900 }.clamped();
        assert_eq!(wild, Tunables { workers: 1, batch_keys_max: 10_000, batch_ms: 5, work_percent: 100 });
        assert_eq!(Tunables::default().clamped(), Tunables::default());
    }
}
