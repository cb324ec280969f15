//! `crossfade scan`: two snapshots compared, offline.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crossfade::backfill::snapshot::{Requirements, SnapshotPair};
use crossfade::backfill::verify::Differences;
use crossfade::backfill::{self, scan};
use crossfade::core::gate::grouped;

use super::connection::Connection;
use super::engine::Engine;
use super::failure::{self, Failure};
use super::output::Output;
use super::work::{self, Scanning, Work};

/// Compare the two sides of a snapshot and write what differs as Parquet, cut into chunks.
///
/// Exits with 4 when anything differs.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  crossfade scan subscriptions --snapshot snapshots/monday --out findings/monday"
)]
pub(crate) struct Scan {
    /// The migration.
    name: String,
    /// The snapshot's folder.
    #[arg(long, value_name = "DIR")]
    snapshot: PathBuf,
    /// The folder to write findings to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Who compares: `local`, or the DataFusion Ballista cluster at df://HOST:PORT.
    #[arg(long, value_name = "ENGINE", default_value = "local")]
    engine: Engine,
    #[command(flatten)]
    scanning: Scanning,
}

impl Scan {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let Work { migration, cancel, .. } = Work::open(&self.name, connection, output).await?;
        let plan = &migration.subject.plan;
        let standing = migration.standing().await?;
        let pair = SnapshotPair::open(&self.snapshot)?;
        pair.require(&Requirements {
            migration: plan.name().to_owned(),
            manifest_hash: plan.fingerprint().to_owned(),
            // Older snapshots may be looked at; what they show counts for no gate, and is not copied.
            epoch_min: 0,
        })?;
        let taken_at = pair.old().manifest().epoch;
        if i64::try_from(taken_at) != Ok(standing.epoch.0) {
            output.note(&format!(
                "warning: the snapshot began in epoch {taken_at}, and the migration is at epoch {}: what is found can be looked at, \
                 and not be copied",
                standing.epoch
            ));
        }
        let (options, out) = (self.scanning.options(), self.out.clone());
        let begun = std::time::Instant::now();
        let elsewhere = self.engine.scan_elsewhere(&pair, &self.out, &options, &cancel, output).await?;
        let summary = if let Some(summary) = elsewhere {
            summary
        } else {
            let scanning = tokio::task::spawn_blocking(move || {
                scan::scan(&pair, &out, &options, &|_| {
                    if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })
            });
            scanning.await.map_err(|_| backfill::Error::WorkerLost)??
        };
        let rows = summary.rows_old + summary.rows_new;
        output.note(&format!("compared {} rows in {:.1} s", grouped(rows), begun.elapsed().as_secs_f64()));
        let found = Differences::of(&summary, &self.out);
        output.result(&summary, |_| {
            let next = if summary.is_clean() {
                "nothing differs\n".to_owned()
            } else {
                format!("next: crossfade copy {} --findings {}\n", self.name, self.out.display())
            };
            work::differences(&found) + &next
        });
        Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(failure::DIFFERENCES) })
    }
}
