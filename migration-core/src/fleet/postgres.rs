//! Leases on Postgres.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Postgres, Row};

use super::{Fleet, Instance};
use crate::connect::Connected;
use crate::control::MigrationId;
use crate::control::postgres::{control_error, no_migration};
use crate::error::Result;
use crate::fence::postgres::{NO_MIGRATION, standing};
use crate::phase::{Epoch, Standing};

#[async_trait]
impl Fleet for Connected<Postgres> {
    async fn renew(
        &self,
        id: MigrationId,
        instance: &str,
        adopted: Epoch,
        ttl: Duration,
    ) -> Result<Standing> {
        // The fence is held until the lease is committed: a change of standing then finds either this
        // lease, and waits for the instance to adopt it, or has been seen by it. Without the fence an
        // instance could read the old standing and register after the change has counted instances.
        let row = sqlx::query(
            "with seen as materialized (select phase, ramp_ppm, epoch from crossfade.fence($1, null)),
                  renewed as (
                      insert into crossfade.instance (migration, name, adopted, lease_until)
                      select $1, $2, $3, clock_timestamp() + make_interval(secs => $4) from seen
                      on conflict (migration, name)
                      do update set adopted = excluded.adopted, lease_until = excluded.lease_until
                  )
             select phase, ramp_ppm, epoch from seen",
        )
        .bind(id.0)
        .bind(instance)
        .bind(adopted.0)
        .bind(ttl.as_secs_f64())
        .fetch_one(&self.pool)
        .await
        .map_err(|error| {
            match error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
                Some(NO_MIGRATION) => no_migration(id),
                _ => control_error(&self.url, "renewing a lease")(error),
            }
        })?;
        standing(&row)
    }

    async fn leave(&self, id: MigrationId, instance: &str) -> Result<()> {
        sqlx::query("delete from crossfade.instance where migration = $1 and name = $2")
            .bind(id.0)
            .bind(instance)
            .execute(&self.pool)
            .await
            .map_err(control_error(&self.url, "giving a lease back"))?;
        Ok(())
    }

    async fn instances(&self, id: MigrationId) -> Result<Vec<Instance>> {
        let failed = || control_error(&self.url, "listing instances");
        // An hour is long enough for an operator to see which instances were killed. The snapshot is
        // older than the deletion, so that both agree on what is gone only by the same condition.
        let rows = sqlx::query(
            "with forgotten as (
                 delete from crossfade.instance
                 where migration = $1 and lease_until < statement_timestamp() - interval '1 hour'
             )
             select name, adopted, lease_until > clock_timestamp() as is_live from crossfade.instance
             where migration = $1 and lease_until >= statement_timestamp() - interval '1 hour'
             order by name collate \"C\"",
        )
        .bind(id.0)
        .fetch_all(&self.pool)
        .await
        .map_err(failed())?;
        let instance = |row: &sqlx::postgres::PgRow| {
            Ok(Instance {
                name: row.try_get("name")?,
                adopted: Epoch(row.try_get("adopted")?),
                is_live: row.try_get("is_live")?,
            })
        };
        rows.iter().map(instance).collect::<sqlx::Result<_>>().map_err(failed())
    }

    async fn touch_old_path(&self, id: MigrationId, epoch: Epoch) -> Result<()> {
        sqlx::query(
            "insert into crossfade.old_path (migration, epoch, last_used_at) values ($1, $2, clock_timestamp())
             on conflict (migration, epoch) do update set last_used_at = clock_timestamp()",
        )
        .bind(id.0)
        .bind(epoch.0)
        .execute(&self.pool)
        .await
        .map_err(control_error(&self.url, "recording a use of the old path"))?;
        Ok(())
    }

    async fn old_path_idle(&self, id: MigrationId, epoch: Epoch) -> Result<Option<Duration>> {
        let seconds: Option<f64> = sqlx::query_scalar(
            "select extract(epoch from clock_timestamp() - last_used_at)::float8
             from crossfade.old_path where migration = $1 and epoch = $2",
        )
        .bind(id.0)
        .bind(epoch.0)
        .fetch_optional(&self.pool)
        .await
        .map_err(control_error(&self.url, "reading when the old path was used"))?;
        // Negative where the database's clock was set back: then it was just now.
        Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
    }
}
