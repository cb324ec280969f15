//! `crossfade copy`: what a scan has found, worked off.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crossfade::backfill::copy::copy;
use crossfade::core::gate::{counted, grouped};

use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;
use super::work::{Tuning, Work};

/// Copy what is missing and repair what differs, of the findings in a folder.
///
/// Each batch is one transaction that locks its old rows first. Run it on as many hosts as you like, on the same findings:
/// workers share the job through the control store. A killed run is gone on with by the same command.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  crossfade copy subscriptions --findings findings/monday --workers 4\n  crossfade copy subscriptions --findings findings/monday --batch-keys-max 200 --work-percent 25"
)]
pub(crate) struct Copy {
    /// The migration.
    name: String,
    /// The findings' folder.
    #[arg(long, value_name = "DIR")]
    findings: PathBuf,
    #[command(flatten)]
    tuning: Tuning,
}

impl Copy {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let Work { migration, progress, cancel } = Work::open(&self.name, connection, output).await?;
        let tunables = self.tuning.tunables(&migration);
        let report = copy(&migration, &self.findings, tunables, &progress, &cancel).await?;
        output.result(&report, |report| {
            format!(
                "{}: copied {}, repaired {}, removed {}\nnext: crossfade verify {}\n",
                counted(report.keys, "key"),
                counted(report.copied, "row"),
                grouped(report.repaired),
                grouped(report.removed),
                self.name
            )
        });
        Ok(ExitCode::SUCCESS)
    }
}
