//! The job queue in SQLite: tables `crossfade_job` and `crossfade_chunk`.
//!
//! Writers exclude each other there, so every call that writes begins with `begin immediate`: what it reads cannot
//! change before it commits, and it never has to wait for a lock half-way.

use std::time::Duration;

use async_trait::async_trait;
use crossfade_migration_core::control::MigrationId;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Row, Sqlite, SqliteConnection, SqlitePool, Transaction};

use super::decide::{Change, afterwards, may_claim, settled, why_none};
use super::{Checkpoint, Claim, Ending, Job, JobId, JobSpec, Jobs, Lease, Leases, Opened, Owner, decode};
use crate::error::{Error, Result};

/// The job queue in SQLite.
#[derive(Debug, Clone)]
pub struct SqliteQueue {
    pool: SqlitePool,
}

/// The database's time, in milliseconds since 1970.
macro_rules! now {
    () => {
        "cast(unixepoch('subsec') * 1000 as integer)"
    };
}

/// A job with its totals; a condition on `j` is to follow.
macro_rules! select_job {
    ($condition:literal) => {
        concat!(
            "select j.id, j.kind, j.state, j.requested, j.epoch, j.source, j.digest, j.params, j.error,
                strftime('%Y-%m-%dT%H:%M:%fZ', j.created_at / 1000.0, 'unixepoch') as created_at,
                count(c.number) as chunks,
                count(*) filter (where c.state = 'done') as chunks_done,
                count(*) filter (where c.state = 'leased' and c.lease_until > ",
            now!(),
            ") as chunks_leased,
                count(*) filter (where c.state = 'failed') as chunks_failed,
                coalesce(sum(c.keys), 0) as keys,
                coalesce(sum(c.keys_done), 0) as keys_done,
                coalesce(sum(c.copied), 0) as copied,
                coalesce(sum(c.repaired), 0) as repaired,
                coalesce(sum(c.removed), 0) as removed,
                coalesce(sum(c.retired), 0) as retired,
                coalesce(sum(c.kept), 0) as kept
             from crossfade_job j left join crossfade_chunk c on c.job = j.id ",
            $condition,
            " group by j.id order by j.id desc"
        )
    };
}

impl SqliteQueue {
    /// A queue in this database, which has crossfade's tables.
    pub fn new(pool: SqlitePool) -> Self {
        SqliteQueue { pool }
    }

    async fn begin(&self, doing: &'static str) -> Result<Transaction<'static, Sqlite>> {
        self.pool.begin_with("begin immediate").await.map_err(Error::database(doing))
    }
}

#[async_trait]
impl Jobs for SqliteQueue {
    async fn open(&self, spec: &JobSpec) -> Result<Opened> {
        let mut transaction = self.begin("opening a job").await?;
        let present = sqlx::query(
            "select id from crossfade_job where migration = ?1 and kind = ?2 and state in ('running', 'paused')",
        )
        .bind(spec.migration.0)
        .bind(spec.kind.as_str())
        .fetch_optional(&mut *transaction)
        .await
        .map_err(Error::database("looking for an unfinished job"))?;
        if let Some(row) = present {
            let id = JobId(row.try_get(0).map_err(Error::database("reading a job"))?);
            let job = read(&mut transaction, id).await?;
            if job.epoch == spec.epoch {
                return if job.digest == spec.digest {
                    Ok(Opened::Resumed(job))
                } else {
                    Err(Error::job_in_the_way(spec, &job))
                };
            }
            fail(&mut transaction, id, &Error::superseded(job.epoch, spec.epoch)).await?;
        }
        let made = sqlx::query(concat!(
            "insert into crossfade_job
                (migration, kind, state, requested, epoch, source, digest, params, created_at, updated_at)
             values (?1, ?2, 'running', 'run', ?3, ?4, ?5, ?6, ",
            now!(),
            ", ",
            now!(),
            ")"
        ))
        .bind(spec.migration.0)
        .bind(spec.kind.as_str())
        .bind(spec.epoch.0)
        .bind(spec.source.to_string_lossy())
        .bind(&spec.digest)
        .bind(super::params_text(&spec.tunables))
        .execute(&mut *transaction)
        .await
        .map_err(Error::database("making a job"))?;
        let id = JobId(made.last_insert_rowid());
        sqlx::query(
            "insert into crossfade_chunk (job, number, keys) select ?1, key, value from json_each(?2)",
        )
        .bind(id.0)
        .bind(serde_json::Value::from(spec.chunks.clone()).to_string())
        .execute(&mut *transaction)
        .await
        .map_err(Error::database("making a job's chunks"))?;
        settle(&mut transaction, id).await?;
        let job = read(&mut transaction, id).await?;
        transaction.commit().await.map_err(Error::database("making a job"))?;
        Ok(Opened::Created(job))
    }

    async fn job(&self, id: JobId) -> Result<Job> {
        let mut connection = self.pool.acquire().await.map_err(Error::database("reading a job"))?;
        read(&mut connection, id).await
    }

    async fn jobs(&self, migration: MigrationId) -> Result<Vec<Job>> {
        let rows = sqlx::query(select_job!("where j.migration = ?1"))
            .bind(migration.0)
            .fetch_all(&self.pool)
            .await
            .map_err(Error::database("listing jobs"))?;
        rows.iter().map(decode::job::<Sqlite>).collect()
    }

    async fn change(&self, id: JobId, change: Change) -> Result<Job> {
        let doing = || Error::database("changing a job");
        let mut transaction = self.begin("changing a job").await?;
        read(&mut transaction, id).await?;
        match change {
            Change::Request(request) => {
                sqlx::query(concat!(
                    "update crossfade_job set requested = ?2, updated_at = ",
                    now!(),
                    " where id = ?1 and state in ('running', 'paused')"
                ))
                .bind(id.0)
                .bind(request.as_str())
                .execute(&mut *transaction)
                .await
                .map_err(doing())?;
            }
            Change::Tune(tunables) => {
                sqlx::query(concat!(
                    "update crossfade_job set params = ?2, updated_at = ",
                    now!(),
                    " where id = ?1 and state in ('running', 'paused')"
                ))
                .bind(id.0)
                .bind(super::params_text(&tunables))
                .execute(&mut *transaction)
                .await
                .map_err(doing())?;
            }
            Change::Fail(error) => fail(&mut transaction, id, &error).await?,
        }
        // Nobody is left to be waited for where the last worker was killed.
        let gone = gone(&mut transaction, id).await?;
        sqlx::query(
            "update crossfade_chunk set state = 'open', owner = null, lease_until = null
             where job = ?1 and state = 'leased' and owner in (select value from json_each(?2))",
        )
        .bind(id.0)
        .bind(serde_json::Value::from(gone).to_string())
        .execute(&mut *transaction)
        .await
        .map_err(doing())?;
        settle(&mut transaction, id).await?;
        let job = read(&mut transaction, id).await?;
        transaction.commit().await.map_err(doing())?;
        Ok(job)
    }
}

#[async_trait]
impl Leases for SqliteQueue {
    async fn claim(&self, job: JobId, owner: &Owner, ttl: Duration) -> Result<Claim> {
        let doing = || Error::database("claiming a chunk");
        let mut transaction = self.begin("claiming a chunk").await?;
        let present = read(&mut transaction, job).await?;
        if may_claim(present.state, present.requested)
            && let Some(lease) = take(&mut transaction, job, owner, ttl).await?
        {
            let job = read(&mut transaction, job).await?;
            transaction.commit().await.map_err(doing())?;
            return Ok(Claim::Leased(lease, job));
        }
        let waiting = settle(&mut transaction, job).await?;
        let job = read(&mut transaction, job).await?;
        transaction.commit().await.map_err(doing())?;
        Ok(if job.state.is_finished() { Claim::Over(job) } else { Claim::Wait(waiting) })
    }

    async fn renew(&self, lease: &Lease, checkpoint: Checkpoint, ttl: Duration) -> Result<Option<Job>> {
        let doing = || Error::database("renewing a lease");
        let mut transaction = self.begin("renewing a lease").await?;
        let statement = sqlx::query(concat!(
            // A lease that ran out and was not taken by anybody is still ours.
            "update crossfade_chunk set lease_until = ",
            now!(),
            " + ?4, keys_done = ?5, copied = ?6, repaired = ?7, removed = ?8, retired = ?9, kept = ?10
             where job = ?1 and number = ?2 and owner = ?3 and state = 'leased'"
        ))
        .bind(lease.job.0)
        .bind(lease.number)
        .bind(lease.owner.as_str())
        .bind(ttl.as_millis() as i64);
        let renewed =
            bind_checkpoint(statement, checkpoint).execute(&mut *transaction).await.map_err(doing())?;
        let job = read(&mut transaction, lease.job).await?;
        transaction.commit().await.map_err(doing())?;
        Ok((renewed.rows_affected() == 1).then_some(job))
    }

    async fn end(&self, lease: &Lease, checkpoint: Checkpoint, ending: &Ending) -> Result<bool> {
        let doing = || Error::database("giving a chunk back");
        let after = afterwards(lease.attempts, ending);
        let mut transaction = self.begin("giving a chunk back").await?;
        let statement = sqlx::query(concat!(
            "update crossfade_chunk set state = ?4, attempts = ?5, error = ?6, not_before = ",
            now!(),
            " + ?7, owner = null, lease_until = null,
                keys_done = ?8, copied = ?9, repaired = ?10, removed = ?11, retired = ?12, kept = ?13
             where job = ?1 and number = ?2 and owner = ?3 and state = 'leased'"
        ))
        .bind(lease.job.0)
        .bind(lease.number)
        .bind(lease.owner.as_str())
        .bind(after.state)
        .bind(after.attempts)
        .bind(after.error)
        .bind(after.rest.as_millis() as i64);
        let ended =
            bind_checkpoint(statement, checkpoint).execute(&mut *transaction).await.map_err(doing())?;
        settle(&mut transaction, lease.job).await?;
        transaction.commit().await.map_err(doing())?;
        Ok(ended.rows_affected() == 1)
    }
}

/// Owners of this job's chunks that are certainly gone.
async fn gone(connection: &mut SqliteConnection, job: JobId) -> Result<Vec<String>> {
    let owners: Vec<String> = sqlx::query_scalar(
        "select distinct owner from crossfade_chunk where job = ?1 and state = 'leased' and owner is not null",
    )
    .bind(job.0)
    .fetch_all(connection)
    .await
    .map_err(Error::database("looking who holds chunks"))?;
    Ok(owners.into_iter().filter(|owner| Owner::parse(owner.clone()).is_gone()).collect())
}

/// A chunk that is free, whose lease has run out, or whose owner is certainly gone.
async fn take(
    connection: &mut SqliteConnection,
    job: JobId,
    owner: &Owner,
    ttl: Duration,
) -> Result<Option<Lease>> {
    let gone = gone(&mut *connection, job).await?;
    let taken = sqlx::query(concat!(
        "update crossfade_chunk set state = 'leased', owner = ?2, lease_until = ",
        now!(),
        " + ?3 where job = ?1 and number = (
            select number from crossfade_chunk
            where job = ?1 and (
                state = 'open' and (not_before is null or not_before <= ",
        now!(),
        ") or state = 'leased' and (lease_until <= ",
        now!(),
        " or owner in (select value from json_each(?4)))
            )
            order by number limit 1
         )
         returning number, attempts, keys_done, copied, repaired, removed, retired, kept"
    ))
    .bind(job.0)
    .bind(owner.as_str())
    .bind(ttl.as_millis() as i64)
    .bind(serde_json::Value::from(gone).to_string())
    .fetch_optional(connection)
    .await
    .map_err(Error::database("claiming a chunk"))?;
    taken.map(|row| decode::lease::<Sqlite>(&row, job, owner)).transpose()
}

async fn read(connection: &mut SqliteConnection, id: JobId) -> Result<Job> {
    let row = sqlx::query(select_job!("where j.id = ?1"))
        .bind(id.0)
        .fetch_optional(connection)
        .await
        .map_err(Error::database("reading a job"))?
        .ok_or(Error::UnknownJob { job: id })?;
    decode::job::<Sqlite>(&row)
}

/// Brings the job's state up to date, and says why a worker might find nothing to do.
async fn settle(connection: &mut SqliteConnection, id: JobId) -> Result<super::Waiting> {
    let row = sqlx::query(concat!(
        "select j.state, j.requested,
            count(*) filter (where c.state = 'done') as chunks_done,
            count(*) filter (where c.state = 'failed') as chunks_failed,
            count(*) filter (where c.state = 'leased' and c.lease_until > ",
        now!(),
        ") as chunks_leased,
            count(*) filter (where c.state = 'open' or c.state = 'leased' and c.lease_until <= ",
        now!(),
        ") as chunks_open
         from crossfade_job j left join crossfade_chunk c on c.job = j.id where j.id = ?1 group by j.id"
    ))
    .bind(id.0)
    .fetch_optional(&mut *connection)
    .await
    .map_err(Error::database("settling a job"))?
    .ok_or(Error::UnknownJob { job: id })?;
    let (state, requested, chunks) = decode::situation::<Sqlite>(&row)?;
    let now = settled(state, requested, chunks);
    if now != state {
        sqlx::query(concat!(
            "update crossfade_job set state = ?2, updated_at = ",
            now!(),
            ", error = case when ?2 = 'failed' then coalesce(error, (
                select 'chunk ' || c.number || ': ' || c.error from crossfade_chunk c
                where c.job = ?1 and c.state = 'failed' order by c.number limit 1)) else error end
             where id = ?1"
        ))
        .bind(id.0)
        .bind(now.as_str())
        .execute(connection)
        .await
        .map_err(Error::database("settling a job"))?;
    }
    Ok(why_none(requested, chunks))
}

async fn fail(connection: &mut SqliteConnection, id: JobId, error: &str) -> Result<()> {
    sqlx::query(concat!(
        "update crossfade_job set state = 'failed', error = ?2, updated_at = ",
        now!(),
        " where id = ?1 and state in ('running', 'paused')"
    ))
    .bind(id.0)
    .bind(error)
    .execute(connection)
    .await
    .map_err(Error::database("marking a job failed"))?;
    Ok(())
}

/// Binds how far a chunk is, in the order of [`Checkpoint::counts`].
fn bind_checkpoint<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    checkpoint: Checkpoint,
) -> Query<'q, Sqlite, SqliteArguments> {
    checkpoint.counts().into_iter().fold(query, Query::bind)
}
