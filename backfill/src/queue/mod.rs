//! The job queue: what copies and cleanups have still to do, cut into chunks that workers lease.
//!
//! Owns jobs and chunks, their states and leases, and who may take a chunk from whom. Knows nothing of what a chunk
//! is about: its callers bring the work. Any number of workers in any number of processes share a job through the
//! control database, and each of them may die at any moment.
//!
//! Every moment is the database's, never a worker's.

mod decide;
mod decode;
mod job;
mod owner;
mod postgres;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use crossfade_migration_core::connect::AnyPool;
use crossfade_migration_core::control::MigrationId;

use crate::error::Result;

pub use decide::{Change, ChunkCounts, backoff, settled};
pub use job::{
    Checkpoint, Claim, Ending, Job, JobId, JobKind, JobSpec, JobState, Lease, Opened, Request, Tunables,
    Waiting,
};
pub use owner::Owner;
pub use postgres::PostgresQueue;
pub use sqlite::SqliteQueue;

/// How long a chunk is leased for. A worker renews every [`RENEW_EVERY`], so that twenty renewals must fail before
/// somebody else takes the chunk; and a host that died is waited for no longer than an operator's patience lasts.
pub const LEASE_TTL: Duration = Duration::from_secs(30);

/// How often a lease is renewed and its checkpoint written. It bounds the work that is done again after a crash, and
/// how soon a worker hears of a pause; one small update per second and worker costs nothing against the batches.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);

/// How often a chunk is tried before it is given up. With [`backoff`] that is about two minutes: longer than a
/// failover or a deploy, short enough that an operator who watches sees the failure.
pub const ATTEMPTS_MAX: u32 = 8;

/// Keeps jobs: the operator's side of the queue.
///
/// # Contract
/// Each call is one transaction. After each, a job's state is what [`settled`] says of it.
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Makes a job, or gives the unfinished one of the same kind that works on the same source.
    ///
    /// An unfinished job of another epoch can never go on, and is marked failed.
    ///
    /// # Errors
    /// [`Error::JobInTheWay`](crate::Error::JobInTheWay) when an unfinished job of this kind works on something else.
    async fn open(&self, spec: &JobSpec) -> Result<Opened>;

    /// The job as it stands.
    ///
    /// # Errors
    /// [`Error::UnknownJob`](crate::Error::UnknownJob).
    async fn job(&self, id: JobId) -> Result<Job>;

    /// The migration's jobs, newest first.
    async fn jobs(&self, migration: MigrationId) -> Result<Vec<Job>>;

    /// Changes what is wanted of a job. Workers hear of it within [`RENEW_EVERY`]; of a finished job nothing can be
    /// wanted any more, and it stays as it is.
    ///
    /// # Errors
    /// [`Error::UnknownJob`](crate::Error::UnknownJob).
    async fn change(&self, id: JobId, change: Change) -> Result<Job>;
}

/// Leases chunks: the worker's side of the queue.
///
/// # Contract
/// - A chunk is leased to one owner at a time; a lease that ran out by the database's clock, or whose owner is a process
///   of this host that is gone, is anybody's.
/// - [`Leases::renew`] and [`Leases::end`] do nothing, and say so, when the lease has passed to somebody else.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the next chunk of a job, or says why there is none.
    async fn claim(&self, job: JobId, owner: &Owner, ttl: Duration) -> Result<Claim>;

    /// Keeps a lease for `ttl` from now, writes down how far its chunk is, and gives the job as it stands; `None` when
    /// the lease is lost.
    async fn renew(&self, lease: &Lease, checkpoint: Checkpoint, ttl: Duration) -> Result<Option<Job>>;

    /// Gives a lease up; `false` when it was lost already.
    async fn end(&self, lease: &Lease, checkpoint: Checkpoint, ending: &Ending) -> Result<bool>;
}

/// The whole queue.
pub trait Queue: Jobs + Leases {}

impl<T: Jobs + Leases> Queue for T {}

/// The queue in the control database.
pub fn queue(pool: &AnyPool) -> Arc<dyn Queue> {
    match pool {
        AnyPool::Postgres(pool) => Arc::new(PostgresQueue::new(pool.clone())),
        AnyPool::Sqlite(pool) => Arc::new(SqliteQueue::new(pool.clone())),
    }
}

/// Settings as they are stored. They are numbers alone, which always have a JSON form.
fn params_text(tunables: &Tunables) -> String {
    let Tunables { workers, batch_keys_max, batch_ms, work_percent } = tunables.clamped();
    serde_json::json!({
        "workers": workers, "batch_keys_max": batch_keys_max, "batch_ms": batch_ms, "work_percent": work_percent,
    })
    .to_string()
}
