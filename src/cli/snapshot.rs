//! `crossfade snapshot`: both tables as Parquet, as of one moment.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crossfade::Phase;
use crossfade::backfill::export::export;
use crossfade::core::gate::counted;

use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;
use super::work::Work;

/// Export both sides under one consistent snapshot to Parquet: DIR/old and DIR/new.
///
/// Nothing is locked against writers. A folder is complete or is no snapshot: after a kill, run it again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade snapshot subscriptions --out snapshots/monday")]
pub(crate) struct Snapshot {
    /// The migration.
    name: String,
    /// The folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// What such a snapshot is good for. From `new_only` on the old store is an archive: nothing is compared with it.
fn next(name: &str, out: &std::path::Path, phase: Phase) -> String {
    let folder = out.display();
    match phase {
        Phase::NewOnly => format!(
            "next: look at what is left in {folder}/old; crossfade cleanup {name} --baseline {folder} removes it"
        ),
        Phase::Complete => String::new(),
        _ => format!("next: crossfade scan {name} --snapshot {folder} --out DIR"),
    }
}

impl Snapshot {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let Work { migration, progress, cancel } = Work::open(&self.name, connection, output).await?;
        let exported = export(&migration, &self.out, &progress, &cancel).await?;
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
                "{}: {} and {} at {} (epoch {})\n{}",
                self.out.display(),
                counted(exported.pair.old().rows(), "old row"),
                counted(exported.pair.new_side().rows(), "new row"),
                new.started_at,
                exported.standing.epoch,
                next(&self.name, &self.out, exported.standing.phase)
            )
        });
        Ok(ExitCode::SUCCESS)
    }
}
