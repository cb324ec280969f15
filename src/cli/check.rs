//! `crossfade check`: a manifest, proven on sample rows.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crossfade::core::check::CheckReport;
use crossfade::core::gate::counted;

use super::connection::{self, Connection};
use super::failure::Failure;
use super::output::Output;

/// Prove a manifest on sample rows, in a read-only transaction, before anything exists.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade check subscriptions.toml")]
pub(crate) struct Check {
    /// The manifest.
    manifest: PathBuf,
}

impl Check {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let manifest = connection::manifest(&self.manifest)?;
        let report = connection.operator_of(&manifest).await?.check(&manifest).await?;
        output.result(&report, |report| text(manifest.name(), report));
        Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A report for people.
pub(crate) fn text(name: &str, report: &CheckReport) -> String {
    let mut text = format!(
        "{name}: {} sampled, {} projected\n",
        counted(report.keys, "key"),
        counted(report.rows, "row")
    );
    for fault in &report.faults {
        text.push_str(&format!("fault: {}\n  hint: {}\n", fault.message, fault.hint));
    }
    for warning in &report.warnings {
        text.push_str(&format!("warning: {}\n  hint: {}\n", warning.message, warning.hint));
    }
    if report.faults.is_empty() {
        text.push_str("the manifest fits the tables\n");
    }
    text
}
