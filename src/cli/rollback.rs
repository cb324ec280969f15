//! `crossfade rollback`: the phase before.

use std::process::ExitCode;

use clap::Args;
use crossfade::Request;

use super::advance::{self, Manner};
use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;

/// Go back to the phase before, losing nothing. Possible until new_only.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade rollback subscriptions --reason 'p99 of reads doubled'")]
pub(crate) struct Rollback {
    /// The migration.
    name: String,
    #[command(flatten)]
    manner: Manner,
}

impl Rollback {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let operator = connection.operator().await?;
        let registered = operator.database().control.migration(&self.name).await?;
        let order = self.manner.order(Request::Rollback, registered.standing.epoch, false);
        if !order.dry_run {
            let moved =
                operator.carry_out(&self.name, &crossfade::Order { dry_run: true, ..order.clone() }).await?;
            let what = format!("{}: back from {} to {}", self.name, moved.from.phase, moved.to.phase);
            self.manner.confirm.step(&what, &self.name, output)?;
        }
        let moved = operator.carry_out(&self.name, &order).await?;
        output.result(&moved, advance::text);
        Ok(ExitCode::SUCCESS)
    }
}
