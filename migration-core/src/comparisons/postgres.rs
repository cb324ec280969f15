//! Tallies and mismatches on Postgres.

use async_trait::async_trait;
use sqlx::{Postgres, Row};

use super::{ComparisonLog, MISMATCHES_MAX, Mismatch, Tally};
use crate::connect::Connected;
use crate::control::MigrationId;
use crate::control::postgres::{control_error, json, json_text};
use crate::error::Result;
use crate::phase::Epoch;

#[async_trait]
impl ComparisonLog for Connected<Postgres> {
    async fn tally(&self, id: MigrationId, instance: &str, epoch: Epoch, tallies: &[Tally]) -> Result<()> {
        let experiments: Vec<&str> = tallies.iter().map(|tally| tally.experiment.as_str()).collect();
        let totals: Vec<String> = tallies.iter().map(|tally| json_text(&tally.totals)).collect();
        // One statement, and so one transaction. An instance is the only writer of its own tallies; what
        // it no longer counts goes away, what it still counts is replaced in place.
        sqlx::query(
            "with gone as (
                 delete from crossfade.tally
                 where migration = $1 and epoch = $2 and instance = $3 and experiment <> all ($4)
             )
             insert into crossfade.tally (migration, epoch, instance, experiment, totals)
             select $1, $2, $3, t.experiment, t.totals::jsonb from unnest($4, $5::text[]) as t(experiment, totals)
             on conflict (migration, epoch, instance, experiment) do update set totals = excluded.totals",
        )
        .bind(id.0)
        .bind(epoch.0)
        .bind(instance)
        .bind(experiments)
        .bind(totals)
        .execute(&self.pool)
        .await
        .map_err(control_error(&self.url, "recording tallies"))?;
        Ok(())
    }

    async fn tallies(&self, id: MigrationId, epoch: Epoch) -> Result<Vec<Tally>> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "select experiment, totals::text from crossfade.tally where migration = $1 and epoch = $2
             order by experiment collate \"C\", instance collate \"C\"",
        )
        .bind(id.0)
        .bind(epoch.0)
        .fetch_all(&self.pool)
        .await
        .map_err(control_error(&self.url, "reading tallies"))?;
        rows.into_iter().map(|(experiment, totals)| Ok(Tally { experiment, totals: json(totals)? })).collect()
    }

    async fn mismatch(&self, id: MigrationId, mismatches: &[Mismatch]) -> Result<()> {
        let failed = || control_error(&self.url, "recording mismatches");
        let text = |text: &str| text.replace('\0', "\u{fffd}");
        let epochs: Vec<i64> = mismatches.iter().map(|mismatch| mismatch.epoch.0).collect();
        let experiments: Vec<String> = mismatches.iter().map(|mismatch| text(&mismatch.experiment)).collect();
        let keys: Vec<String> = mismatches.iter().map(|mismatch| text(&mismatch.key)).collect();
        let differences: Vec<String> =
            mismatches.iter().map(|mismatch| json_text(&mismatch.differences)).collect();
        let mut transaction = self.pool.begin().await.map_err(failed())?;
        sqlx::query(
            "insert into crossfade.mismatch (migration, epoch, experiment, key, differences)
             select $1, m.epoch, m.experiment, m.key, m.differences::jsonb
             from unnest($2, $3, $4, $5) with ordinality as m(epoch, experiment, key, differences, place)
             order by m.place",
        )
        .bind(id.0)
        .bind(epochs)
        .bind(experiments)
        .bind(keys)
        .bind(differences)
        .execute(&mut *transaction)
        .await
        .map_err(failed())?;
        // In a statement of its own, which sees the rows above.
        sqlx::query(
            "delete from crossfade.mismatch where migration = $1 and id <= (
                 select id from crossfade.mismatch where migration = $1 order by id desc offset $2 limit 1
             )",
        )
        .bind(id.0)
        .bind(i64::from(MISMATCHES_MAX))
        .execute(&mut *transaction)
        .await
        .map_err(failed())?;
        transaction.commit().await.map_err(failed())
    }

    async fn mismatches(&self, id: MigrationId, limit: u32) -> Result<Vec<Mismatch>> {
        let failed = || control_error(&self.url, "reading mismatches");
        let rows = sqlx::query(
            r#"select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at,
                      epoch, experiment, key, differences::text as differences
               from crossfade.mismatch where migration = $1 order by id desc limit $2"#,
        )
        .bind(id.0)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(failed())?;
        let mismatch = |row: &sqlx::postgres::PgRow| {
            Ok(Mismatch {
                at: row.try_get("at").map_err(failed())?,
                epoch: Epoch(row.try_get("epoch").map_err(failed())?),
                experiment: row.try_get("experiment").map_err(failed())?,
                key: row.try_get("key").map_err(failed())?,
                differences: json(row.try_get("differences").map_err(failed())?)?,
            })
        };
        rows.iter().map(mismatch).collect()
    }
}
