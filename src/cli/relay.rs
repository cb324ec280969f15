//! `crossfade relay`: what has still to reach the other database.

use std::process::ExitCode;

use clap::Args;

use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;

/// Bring over what has still to reach the other database.
///
/// Both tables of a migration lie in one database, where each write and its mirror commit together: nothing is ever left to be
/// relayed, and the command says so. It is here for scripts that run it before they advance, whatever the migration.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade relay subscriptions --json | jq .pending")]
pub(crate) struct Relay {
    /// The migration.
    name: String,
}

impl Relay {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let operator = connection.operator().await?;
        let registered = operator.database().control.migration(&self.name).await?;
        let document = serde_json::json!({
            "migration": self.name,
            "epoch": registered.standing.epoch,
            "pending": 0,
            "relayed": 0,
        });
        output.result(&document, |_| {
            format!(
                "{}: nothing to relay: writes and their mirrors commit together, in one database",
                self.name
            )
        });
        Ok(ExitCode::SUCCESS)
    }
}
