//! Leases on SQLite.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Sqlite;

use super::{Fleet, Instance};
use crate::connect::Connected;
use crate::control::MigrationId;
use crate::control::sqlite::{milliseconds, standing_of, unknown};
use crate::error::Result;
use crate::fence::Fence;
use crate::phase::{Epoch, Standing};

/// After how many milliseconds an instance that has stopped renewing is forgotten: a day later nobody
/// asks any more which instances were there.
const FORGET_AFTER_MS: i64 = 24 * 3600 * 1000;

#[async_trait]
impl Fleet for Connected<Sqlite> {
    async fn renew(
        &self,
        id: MigrationId,
        instance: &str,
        adopted: Epoch,
        ttl: Duration,
    ) -> Result<Standing> {
        let fault = |error| self.fault("renewing an instance's lease", error);
        let mut transaction = Sqlite::begin_write(&self.pool).await?;
        // The standing first: an instance cannot have a lease on a migration that is not there.
        let row = sqlx::query_as("select phase, ramp_ppm, epoch from crossfade_migration where id = ?1")
            .bind(id.0)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(fault)?;
        let (phase, ramp, epoch): (String, i64, i64) = row.ok_or_else(|| unknown(id))?;
        sqlx::query(
            "insert into crossfade_instance (migration, name, adopted, lease_until_ms)
             values (?1, ?2, ?3, cast(unixepoch('subsec') * 1000 as integer) + ?4)
             on conflict (migration, name) do update
             set adopted = excluded.adopted, lease_until_ms = excluded.lease_until_ms",
        )
        .bind(id.0)
        .bind(instance)
        .bind(adopted.0)
        .bind(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await
        .map_err(fault)?;
        sqlx::query(
            "delete from crossfade_instance
             where migration = ?1 and lease_until_ms < cast(unixepoch('subsec') * 1000 as integer) - ?2",
        )
        .bind(id.0)
        .bind(FORGET_AFTER_MS)
        .execute(&mut *transaction)
        .await
        .map_err(fault)?;
        transaction.commit().await.map_err(fault)?;
        standing_of(&phase, ramp, epoch)
    }

    async fn leave(&self, id: MigrationId, instance: &str) -> Result<()> {
        sqlx::query("delete from crossfade_instance where migration = ?1 and name = ?2")
            .bind(id.0)
            .bind(instance)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|error| self.fault("forgetting an instance", error))
    }

    async fn instances(&self, id: MigrationId) -> Result<Vec<Instance>> {
        let rows: Vec<(String, i64, bool)> = sqlx::query_as(
            "select name, adopted, lease_until_ms > cast(unixepoch('subsec') * 1000 as integer)
             from crossfade_instance where migration = ?1 order by name",
        )
        .bind(id.0)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.fault("listing instances", error))?;
        Ok(rows
            .into_iter()
            .map(|(name, adopted, is_live)| Instance { name, adopted: Epoch(adopted), is_live })
            .collect())
    }

    async fn touch_old_path(&self, id: MigrationId, epoch: Epoch) -> Result<()> {
        sqlx::query(
            "insert into crossfade_old_path (migration, epoch, last_used_at_ms)
             values (?1, ?2, cast(unixepoch('subsec') * 1000 as integer))
             on conflict (migration, epoch) do update
             set last_used_at_ms = max(last_used_at_ms, excluded.last_used_at_ms)",
        )
        .bind(id.0)
        .bind(epoch.0)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|error| self.fault("recording a use of the old path", error))
    }

    async fn old_path_idle(&self, id: MigrationId, epoch: Epoch) -> Result<Option<Duration>> {
        let idle: Option<i64> = sqlx::query_scalar(
            "select max(0, cast(unixepoch('subsec') * 1000 as integer) - last_used_at_ms)
             from crossfade_old_path where migration = ?1 and epoch = ?2",
        )
        .bind(id.0)
        .bind(epoch.0)
        .fetch_optional(&self.pool)
        .await
        .map_err(|error| self.fault("reading the last use of the old path", error))?;
        Ok(idle.map(milliseconds))
    }
}
