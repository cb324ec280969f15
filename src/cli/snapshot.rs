//! `crossfade snapshot`: both tables as Parquet, as of one moment.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use crossfade::DatabaseUrl;
use crossfade::backfill::export::{CONNECTIONS, ExportOptions, export_with};
use crossfade::core::connect::AnyDatabase;
use crossfade::core::gate::counted;
use humantime_serde::re::humantime::parse_duration;

use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;
use super::work::Work;

const MEGABYTE: NonZeroU64 = NonZeroU64::new(1_000_000).expect("not zero");

/// Export both sides under one consistent snapshot to Parquet: DIR/old and DIR/new.
///
/// Nothing is locked against writers. A folder is complete or is no snapshot. A lost connection costs the range that it
/// read; the moment itself ends with this process, so that after a kill the command begins anew.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade snapshot subscriptions --out snapshots/monday")]
pub(crate) struct Snapshot {
    /// The migration.
    name: String,
    /// The folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Connections that read at the same time; SQLite has one.
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS)]
    connections: NonZeroUsize,
    /// Megabytes per second to read at most, all connections together.
    #[arg(long, value_name = "N")]
    rate_mb: Option<NonZeroU32>,
    /// How long the moment may be held open, such as 90m or 2h: meanwhile the database cannot remove dead rows.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    max_age: Duration,
    /// Read from this replica (Postgres), once it has replayed everything written so far: a URL, or env:NAME.
    #[arg(long, value_name = "URL")]
    replica: Option<String>,
}

impl Snapshot {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let Work { migration, progress, cancel } = Work::open(&self.name, connection, output).await?;
        let mut options = ExportOptions::default();
        options.connections = self.connections;
        options.bytes_per_second_max =
            self.rate_mb.map(|rate| NonZeroU64::from(rate).saturating_mul(MEGABYTE));
        options.age_max = self.max_age;
        if let Some(url) = &self.replica {
            let url = DatabaseUrl::parse(url).map_err(crossfade::core::Error::from)?;
            options.replica = Some(AnyDatabase::connect(&url).await?);
        }
        let exported = export_with(&migration, &self.out, &options, &progress, &cancel).await?;
        let (old, new) = (exported.pair.old().manifest(), exported.pair.new_side().manifest());
        let document = serde_json::json!({
            "migration": self.name,
            "snapshot": self.out,
            "epoch": exported.standing.epoch,
            "phase": exported.standing.phase,
            "consistent_point": old.consistent_point,
            "rows_old": exported.pair.old().rows(),
            "rows_new": exported.pair.new_side().rows(),
        });
        output.result(&document, |_| {
            format!(
                "{}: {} and {} at {} (epoch {})\nnext: crossfade scan {} --snapshot {} --out DIR",
                self.out.display(),
                counted(exported.pair.old().rows(), "old row"),
                counted(exported.pair.new_side().rows(), "new row"),
                new.started_at,
                exported.standing.epoch,
                self.name,
                self.out.display()
            )
        });
        Ok(ExitCode::SUCCESS)
    }
}
