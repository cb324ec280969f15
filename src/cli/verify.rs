//! `crossfade verify`: fresh snapshots, compared and rechecked, as evidence.

use std::process::ExitCode;

use clap::Args;
use crossfade::Phase;
use crossfade::backfill::rounds::prune;
use crossfade::backfill::verify::verify;
use crossfade::backfill::workspace::Workspace;
use crossfade::core::gate::grouped;

use super::connection::Connection;
use super::failure::{self, Failure};
use super::output::Output;
use super::work::{self, Scanning, Work, WorkFolder};

/// Compare both stores afresh, look again at every finding under lock, and record the evidence.
///
/// Exits with 4 when anything still differs.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade verify subscriptions")]
pub(crate) struct Verify {
    /// The migration.
    name: String,
    #[command(flatten)]
    folder: WorkFolder,
    #[command(flatten)]
    scanning: Scanning,
}

impl Verify {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let Work { migration, progress, cancel } = Work::open(&self.name, connection, output).await?;
        let workspace = Workspace::open(&self.folder.root, &self.name)?;
        let round = workspace.begin_round()?;
        let verification = verify(&migration, &round, &self.scanning.options(), &progress, &cancel).await?;
        prune(&migration, &workspace).await?;
        output.result(&verification, |verification| {
            let mut text = work::differences(&verification.differences);
            if verification.healed > 0 {
                text.push_str(&format!(
                    "{} more had healed when they were looked at again\n",
                    grouped(verification.healed)
                ));
            }
            if verification.is_clean() {
                text.push_str(&format!(
                    "nothing differs at epoch {}; recorded as evidence\n",
                    verification.epoch
                ));
            } else if verification.phase == Phase::OldOnly {
                text.push_str(&format!(
                    "next: crossfade advance {}, then crossfade backfill {}\n",
                    self.name, self.name
                ));
            } else {
                text.push_str(&format!("next: crossfade backfill {}\n", self.name));
            }
            text
        });
        Ok(if verification.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(failure::DIFFERENCES) })
    }
}
