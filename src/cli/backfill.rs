//! `crossfade backfill`: snapshot, scan, copy and verify, until nothing is found.

use std::process::ExitCode;

use clap::Args;
use crossfade::backfill::rounds::{self, BackfillOptions, ROUNDS_MAX};
use crossfade::core::gate::{counted, grouped};

use super::connection::Connection;
use super::failure::{self, Failure};
use super::output::Output;
use super::work::{self, Scanning, Tuning, Work, WorkFolder};

/// Snapshot, scan, copy and verify, again and again, until nothing is found.
///
/// A killed run is gone on with by the same command. Exits with 4 when something is left after the last round.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  crossfade backfill subscriptions --workers 4\n  crossfade backfill subscriptions --batch-keys-max 200 --work-percent 25"
)]
pub(crate) struct Backfill {
    /// The migration.
    name: String,
    /// Rounds before it gives up.
    #[arg(long, value_name = "N", default_value_t = ROUNDS_MAX, value_parser = clap::value_parser!(u32).range(1..))]
    rounds_max: u32,
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    scanning: Scanning,
    #[command(flatten)]
    folder: WorkFolder,
}

impl Backfill {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let Work { migration, progress, cancel } = Work::open(&self.name, connection, output).await?;
        let options = BackfillOptions {
            rounds_max: self.rounds_max,
            tunables: self.tuning.tunables(&migration),
            scan: self.scanning.options(),
        };
        let backfilled =
            rounds::backfill(&migration, &self.folder.root, &options, &progress, &cancel).await?;
        output.result(&backfilled, |backfilled| {
            let mut text = format!(
                "{}: copied {}, repaired {}, removed {}\n{}",
                counted(backfilled.rounds.into(), "round"),
                counted(backfilled.copied, "row"),
                grouped(backfilled.repaired),
                grouped(backfilled.removed),
                work::differences(&backfilled.verification.differences)
            );
            text.push_str(&if backfilled.clean {
                format!("nothing differs at epoch {}; recorded as evidence\n", backfilled.verification.epoch)
            } else {
                format!(
                    "something is still written past the mirror; the findings are in {}\n",
                    backfilled.verification.differences.findings.display()
                )
            });
            text
        });
        Ok(if backfilled.clean { ExitCode::SUCCESS } else { ExitCode::from(failure::DIFFERENCES) })
    }
}
