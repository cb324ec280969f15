//! The job queue in Postgres: schema `crossfade`.

use std::time::Duration;

use async_trait::async_trait;
use crossfade_migration_core::control::MigrationId;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, PgPool, Postgres, Row};

use super::decide::{Change, afterwards, may_claim, settled, why_none};
use super::{
    Checkpoint, Claim, Ending, Job, JobId, JobSpec, JobState, Jobs, Lease, Leases, Opened, Owner, Request,
    decode,
};
use crate::error::{Error, Result};

/// The job queue in Postgres.
#[derive(Debug, Clone)]
pub struct PostgresQueue {
    pool: PgPool,
}

/// A job with its totals; a condition on `j` is to follow.
macro_rules! select_job {
    ($condition:literal) => {
        concat!(
            "select j.id, j.kind, j.state, j.requested, j.epoch, j.source, j.digest, j.params::text as params, j.error,
                to_char(j.created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as created_at, c.*
             from crossfade.job j cross join lateral (
                select count(*) as chunks,
                    count(*) filter (where state = 'done') as chunks_done,
                    count(*) filter (where state = 'leased' and lease_until > clock_timestamp()) as chunks_leased,
                    count(*) filter (where state = 'failed') as chunks_failed,
                    coalesce(sum(keys), 0)::bigint as keys,
                    coalesce(sum(keys_done), 0)::bigint as keys_done,
                    coalesce(sum(copied), 0)::bigint as copied,
                    coalesce(sum(repaired), 0)::bigint as repaired,
                    coalesce(sum(removed), 0)::bigint as removed,
                    coalesce(sum(retired), 0)::bigint as retired,
                    coalesce(sum(kept), 0)::bigint as kept
                from crossfade.chunk where job = j.id
             ) c ",
            $condition
        )
    };
}

impl PostgresQueue {
    /// A queue in this database, which has crossfade's tables.
    pub fn new(pool: PgPool) -> Self {
        PostgresQueue { pool }
    }

    /// As [`Jobs::open`], unless somebody else makes a job of the kind at the same moment: then `None`.
    async fn try_open(&self, spec: &JobSpec) -> Result<Option<Opened>> {
        let mut transaction = self.pool.begin().await.map_err(Error::database("opening a job"))?;
        let present = sqlx::query(
            // Locked: the job must not finish, or fail, between this look and what is decided on it.
            "select id from crossfade.job where migration = $1 and kind = $2 and state in ('running', 'paused') for update",
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
                transaction.commit().await.map_err(Error::database("opening a job"))?;
                return if job.digest == spec.digest {
                    Ok(Some(Opened::Resumed(job)))
                } else {
                    Err(Error::job_in_the_way(spec, &job))
                };
            }
            fail(&mut transaction, id, &Error::superseded(job.epoch, spec.epoch)).await?;
        }
        let row = sqlx::query(
            "insert into crossfade.job (migration, kind, state, requested, epoch, source, digest, params)
             values ($1, $2, 'running', 'run', $3, $4, $5, $6::jsonb)
             on conflict (migration, kind) where state in ('running', 'paused') do nothing
             returning id",
        )
        .bind(spec.migration.0)
        .bind(spec.kind.as_str())
        .bind(spec.epoch.0)
        .bind(spec.source.to_string_lossy())
        .bind(&spec.digest)
        .bind(super::params_text(&spec.tunables))
        .fetch_optional(&mut *transaction)
        .await
        .map_err(Error::database("making a job"))?;
        let Some(row) = row else { return Ok(None) };
        let id = JobId(row.try_get(0).map_err(Error::database("reading a job"))?);
        let keys: Vec<i64> = spec.chunks.iter().map(|keys| *keys as i64).collect();
        sqlx::query(
            "insert into crossfade.chunk (job, number, keys)
             select $1, position - 1, keys from unnest($2::bigint[]) with ordinality as c (keys, position)",
        )
        .bind(id.0)
        .bind(keys)
        .execute(&mut *transaction)
        .await
        .map_err(Error::database("making a job's chunks"))?;
        settle(&mut transaction, id).await?;
        let job = read(&mut transaction, id).await?;
        transaction.commit().await.map_err(Error::database("making a job"))?;
        Ok(Some(Opened::Created(job)))
    }

    /// Owners of this job's chunks that are certainly gone.
    async fn gone(&self, job: JobId) -> Result<Vec<String>> {
        let owners: Vec<String> = sqlx::query_scalar(
            "select distinct owner from crossfade.chunk where job = $1 and state = 'leased' and owner is not null",
        )
        .bind(job.0)
        .fetch_all(&self.pool)
        .await
        .map_err(Error::database("looking who holds chunks"))?;
        Ok(owners.into_iter().filter(|owner| Owner::parse(owner.clone()).is_gone()).collect())
    }

    /// A chunk that is free, whose lease has run out, or whose owner is one of `gone`.
    async fn take(&self, job: JobId, owner: &Owner, ttl: Duration, gone: &[String]) -> Result<Option<Claim>> {
        let mut transaction = self.pool.begin().await.map_err(Error::database("claiming a chunk"))?;
        // Shared, so that claims do not queue, and no pause or cancellation is settled in between.
        let row = sqlx::query("select state, requested from crossfade.job where id = $1 for share")
            .bind(job.0)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(Error::database("reading a job"))?
            .ok_or(Error::UnknownJob { job })?;
        let wanted = |column| row.try_get::<&str, _>(column).map_err(Error::database("reading a job"));
        let state = JobState::parse(wanted("state")?);
        let requested = Request::parse(wanted("requested")?);
        if !state.zip(requested).is_some_and(|(state, requested)| may_claim(state, requested)) {
            return Ok(None);
        }
        let taken = sqlx::query(
            // Chunks that another claim has its hands on are skipped, not waited for.
            "update crossfade.chunk c
             set state = 'leased', owner = $2, lease_until = clock_timestamp() + $3 * interval '1 second'
             from (
                select number from crossfade.chunk
                where job = $1 and (
                    state = 'open' and (not_before is null or not_before <= clock_timestamp())
                    or state = 'leased' and (lease_until <= clock_timestamp() or owner = any($4))
                )
                order by number limit 1 for update skip locked
             ) free
             where c.job = $1 and c.number = free.number
             returning c.number::bigint as number, c.attempts::bigint as attempts,
                c.keys_done, c.copied, c.repaired, c.removed, c.retired, c.kept",
        )
        .bind(job.0)
        .bind(owner.as_str())
        .bind(ttl.as_secs_f64())
        .bind(gone)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(Error::database("claiming a chunk"))?;
        let Some(taken) = taken else { return Ok(None) };
        let lease = decode::lease::<Postgres>(&taken, job, owner)?;
        let job = read(&mut transaction, job).await?;
        transaction.commit().await.map_err(Error::database("claiming a chunk"))?;
        Ok(Some(Claim::Leased(lease, job)))
    }
}

#[async_trait]
impl Jobs for PostgresQueue {
    async fn open(&self, spec: &JobSpec) -> Result<Opened> {
        loop {
            if let Some(opened) = self.try_open(spec).await? {
                return Ok(opened);
            }
        }
    }

    async fn job(&self, id: JobId) -> Result<Job> {
        let mut connection = self.pool.acquire().await.map_err(Error::database("reading a job"))?;
        read(&mut connection, id).await
    }

    async fn jobs(&self, migration: MigrationId) -> Result<Vec<Job>> {
        let rows = sqlx::query(select_job!("where j.migration = $1 order by j.id desc"))
            .bind(migration.0)
            .fetch_all(&self.pool)
            .await
            .map_err(Error::database("listing jobs"))?;
        rows.iter().map(decode::job::<Postgres>).collect()
    }

    async fn change(&self, id: JobId, change: Change) -> Result<Job> {
        let doing = || Error::database("changing a job");
        let gone = self.gone(id).await?;
        let mut transaction = self.pool.begin().await.map_err(doing())?;
        lock(&mut transaction, id).await?;
        match change {
            Change::Request(request) => {
                sqlx::query(
                    "update crossfade.job set requested = $2, updated_at = clock_timestamp()
                     where id = $1 and state in ('running', 'paused')",
                )
                .bind(id.0)
                .bind(request.as_str())
                .execute(&mut *transaction)
                .await
                .map_err(doing())?;
            }
            Change::Tune(tunables) => {
                sqlx::query(
                    "update crossfade.job set params = $2::jsonb, updated_at = clock_timestamp()
                     where id = $1 and state in ('running', 'paused')",
                )
                .bind(id.0)
                .bind(super::params_text(&tunables))
                .execute(&mut *transaction)
                .await
                .map_err(doing())?;
            }
            Change::Fail(error) => fail(&mut transaction, id, &error).await?,
        }
        // Nobody is left to be waited for where the last worker was killed.
        sqlx::query(
            "update crossfade.chunk set state = 'open', owner = null, lease_until = null
             where job = $1 and state = 'leased' and owner = any($2)",
        )
        .bind(id.0)
        .bind(gone)
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
impl Leases for PostgresQueue {
    async fn claim(&self, job: JobId, owner: &Owner, ttl: Duration) -> Result<Claim> {
        if let Some(claim) = self.take(job, owner, ttl, &[]).await? {
            return Ok(claim);
        }
        let gone = self.gone(job).await?;
        if !gone.is_empty()
            && let Some(claim) = self.take(job, owner, ttl, &gone).await?
        {
            return Ok(claim);
        }
        let mut transaction = self.pool.begin().await.map_err(Error::database("settling a job"))?;
        let waiting = settle(&mut transaction, job).await?;
        let job = read(&mut transaction, job).await?;
        transaction.commit().await.map_err(Error::database("settling a job"))?;
        Ok(if job.state.is_finished() { Claim::Over(job) } else { Claim::Wait(waiting) })
    }

    async fn renew(&self, lease: &Lease, checkpoint: Checkpoint, ttl: Duration) -> Result<Option<Job>> {
        let mut connection = self.pool.acquire().await.map_err(Error::database("renewing a lease"))?;
        let statement = sqlx::query(
            // A lease that ran out and was not taken by anybody is still ours.
            "update crossfade.chunk
             set lease_until = clock_timestamp() + $4 * interval '1 second',
                keys_done = $5, copied = $6, repaired = $7, removed = $8, retired = $9, kept = $10
             where job = $1 and number = $2 and owner = $3 and state = 'leased'",
        )
        .bind(lease.job.0)
        .bind(lease.number as i32)
        .bind(lease.owner.as_str())
        .bind(ttl.as_secs_f64());
        let renewed = bind_checkpoint(statement, checkpoint)
            .execute(&mut *connection)
            .await
            .map_err(Error::database("renewing a lease"))?;
        if renewed.rows_affected() == 0 {
            return Ok(None);
        }
        read(&mut connection, lease.job).await.map(Some)
    }

    async fn end(&self, lease: &Lease, checkpoint: Checkpoint, ending: &Ending) -> Result<bool> {
        let doing = || Error::database("giving a chunk back");
        let after = afterwards(lease.attempts, ending);
        let mut transaction = self.pool.begin().await.map_err(doing())?;
        let statement = sqlx::query(
            "update crossfade.chunk
             set state = $4, attempts = $5, error = $6, not_before = clock_timestamp() + $7 * interval '1 second',
                owner = null, lease_until = null,
                keys_done = $8, copied = $9, repaired = $10, removed = $11, retired = $12, kept = $13
             where job = $1 and number = $2 and owner = $3 and state = 'leased'",
        )
        .bind(lease.job.0)
        .bind(lease.number as i32)
        .bind(lease.owner.as_str())
        .bind(after.state)
        .bind(after.attempts as i32)
        .bind(after.error)
        .bind(after.rest.as_secs_f64());
        let ended =
            bind_checkpoint(statement, checkpoint).execute(&mut *transaction).await.map_err(doing())?;
        settle(&mut transaction, lease.job).await?;
        transaction.commit().await.map_err(doing())?;
        Ok(ended.rows_affected() == 1)
    }
}

async fn read(connection: &mut PgConnection, id: JobId) -> Result<Job> {
    let row = sqlx::query(select_job!("where j.id = $1"))
        .bind(id.0)
        .fetch_optional(connection)
        .await
        .map_err(Error::database("reading a job"))?
        .ok_or(Error::UnknownJob { job: id })?;
    decode::job::<Postgres>(&row)
}

/// Locks the job alone, before its chunks are counted: whoever settles it next counts after this one's commit.
async fn lock(connection: &mut PgConnection, id: JobId) -> Result<()> {
    sqlx::query("select 1 from crossfade.job where id = $1 for update")
        .bind(id.0)
        .fetch_optional(connection)
        .await
        .map_err(Error::database("locking a job"))?
        .ok_or(Error::UnknownJob { job: id })?;
    Ok(())
}

/// Brings the job's state up to date, and says why a worker might find nothing to do.
async fn settle(connection: &mut PgConnection, id: JobId) -> Result<super::Waiting> {
    lock(connection, id).await?;
    // A later statement than the lock, so that it sees what was committed while it waited.
    let row = sqlx::query(
        "select j.state, j.requested, c.* from crossfade.job j cross join lateral (
            select count(*) filter (where state = 'done') as chunks_done,
                count(*) filter (where state = 'failed') as chunks_failed,
                count(*) filter (where state = 'leased' and lease_until > clock_timestamp()) as chunks_leased,
                count(*) filter (where state = 'open'
                    or state = 'leased' and lease_until <= clock_timestamp()) as chunks_open
            from crossfade.chunk where job = j.id
         ) c where j.id = $1",
    )
    .bind(id.0)
    .fetch_one(&mut *connection)
    .await
    .map_err(Error::database("settling a job"))?;
    let (state, requested, chunks) = decode::situation::<Postgres>(&row)?;
    let now = settled(state, requested, chunks);
    if now != state {
        sqlx::query(
            "update crossfade.job set state = $2, updated_at = clock_timestamp(),
                error = case when $2 = 'failed' then coalesce(error, (
                    select 'chunk ' || number || ': ' || error from crossfade.chunk
                    where job = $1 and state = 'failed' order by number limit 1)) else error end
             where id = $1",
        )
        .bind(id.0)
        .bind(now.as_str())
        .execute(connection)
        .await
        .map_err(Error::database("settling a job"))?;
    }
    Ok(why_none(requested, chunks))
}

async fn fail(connection: &mut PgConnection, id: JobId, error: &str) -> Result<()> {
    sqlx::query(
        "update crossfade.job set state = 'failed', error = $2, updated_at = clock_timestamp()
         where id = $1 and state in ('running', 'paused')",
    )
    .bind(id.0)
    .bind(error)
    .execute(connection)
    .await
    .map_err(Error::database("marking a job failed"))?;
    Ok(())
}

/// Binds how far a chunk is, in the order of [`Checkpoint::counts`].
fn bind_checkpoint<'q>(
    query: Query<'q, Postgres, PgArguments>,
    checkpoint: Checkpoint,
) -> Query<'q, Postgres, PgArguments> {
    checkpoint.counts().into_iter().fold(query, Query::bind)
}
