//! Tallies and mismatches on SQLite.

use async_trait::async_trait;
use sqlx::Sqlite;

use super::{ComparisonLog, MISMATCHES_MAX, Mismatch, Tally};
use crate::connect::Connected;
use crate::control::MigrationId;
use crate::control::sqlite::json;
use crate::error::Result;
use crate::fence::Fence;
use crate::phase::Epoch;

#[async_trait]
impl ComparisonLog for Connected<Sqlite> {
    async fn tally(&self, id: MigrationId, instance: &str, epoch: Epoch, tallies: &[Tally]) -> Result<()> {
        let fault = |error| self.fault("recording comparisons", error);
        let mut transaction = Sqlite::begin_write(&self.pool).await?;
        sqlx::query("delete from crossfade_tally where migration = ?1 and epoch = ?2 and instance = ?3")
            .bind(id.0)
            .bind(epoch.0)
            .bind(instance)
            .execute(&mut *transaction)
            .await
            .map_err(fault)?;
        for tally in tallies {
            sqlx::query(
                "insert into crossfade_tally (migration, epoch, instance, experiment, totals)
                 values (?1, ?2, ?3, ?4, ?5)",
            )
            .bind(id.0)
            .bind(epoch.0)
            .bind(instance)
            .bind(&tally.experiment)
            .bind(tally.totals.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(fault)?;
        }
        transaction.commit().await.map_err(fault)
    }

    async fn tallies(&self, id: MigrationId, epoch: Epoch) -> Result<Vec<Tally>> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "select experiment, totals from crossfade_tally
             where migration = ?1 and epoch = ?2 order by instance, experiment",
        )
        .bind(id.0)
        .bind(epoch.0)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.fault("reading comparisons", error))?;
        rows.into_iter()
            .map(|(experiment, totals)| Ok(Tally { experiment, totals: json(&totals)? }))
            .collect()
    }

    async fn mismatch(&self, id: MigrationId, mismatches: &[Mismatch]) -> Result<()> {
        if mismatches.is_empty() {
            return Ok(());
        }
        let fault = |error| self.fault("recording mismatches", error);
        let kept = &mismatches[mismatches.len().saturating_sub(MISMATCHES_MAX as usize)..];
        let mut transaction = Sqlite::begin_write(&self.pool).await?;
        for mismatch in kept {
            sqlx::query(
                "insert into crossfade_mismatch (migration, at_ms, epoch, experiment, key, differences)
                 values (?1, cast(unixepoch('subsec') * 1000 as integer), ?2, ?3, ?4, ?5)",
            )
            .bind(id.0)
            .bind(mismatch.epoch.0)
            .bind(&mismatch.experiment)
            .bind(&mismatch.key)
            .bind(mismatch.differences.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(fault)?;
        }
        sqlx::query(
            "delete from crossfade_mismatch where migration = ?1 and id <= (
                 select id from crossfade_mismatch where migration = ?1 order by id desc limit 1 offset ?2)",
        )
        .bind(id.0)
        .bind(MISMATCHES_MAX)
        .execute(&mut *transaction)
        .await
        .map_err(fault)?;
        transaction.commit().await.map_err(fault)
    }

    async fn mismatches(&self, id: MigrationId, limit: u32) -> Result<Vec<Mismatch>> {
        let rows: Vec<(String, i64, String, String, String)> = sqlx::query_as(
            "select strftime('%Y-%m-%dT%H:%M:%fZ', at_ms / 1000.0, 'unixepoch'), epoch, experiment, key, differences
             from crossfade_mismatch where migration = ?1 order by id desc limit ?2",
        )
        .bind(id.0)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.fault("reading mismatches", error))?;
        rows.into_iter()
            .map(|(at, epoch, experiment, key, differences)| {
                Ok(Mismatch { at, epoch: Epoch(epoch), experiment, key, differences: json(&differences)? })
            })
            .collect()
    }
}
