//! `crossfade history`: who did what, when and why.

use std::process::ExitCode;

use clap::Args;
use crossfade::core::control::AuditRecord;

use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;

/// Show who moved the migration, when, why, and on what evidence.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade history subscriptions --json | jq '.[] | select(.forced)'")]
pub(crate) struct History {
    /// The migration.
    name: String,
}

impl History {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let records = connection.operator().await?.history(&self.name).await?;
        output.result(&records, |records| records.iter().map(line).collect());
        Ok(ExitCode::SUCCESS)
    }
}

fn line(record: &AuditRecord) -> String {
    let from = record.from.map_or_else(|| "(new)".to_owned(), |from| from.to_string());
    let forced = if record.account.forced { "  FORCED" } else { "" };
    let reason = record.account.reason.as_ref().map(|reason| format!("  ({reason})")).unwrap_or_default();
    format!("{}  {from} -> {}  by {}{forced}{reason}\n", record.at, record.to, record.account.actor)
}
