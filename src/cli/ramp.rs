//! `crossfade ramp`: the share of keys that a phase applies to.

use std::process::ExitCode;

use clap::Args;
use crossfade::Request;

use super::advance::{self, Manner};
use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;

/// Change the share of keys that the present phase applies to.
///
/// In dual_write the share of keys that are mirrored, in shadow_read the sample that is compared, in read_new the
/// share that is read from the new store. The same keys are chosen everywhere, and a larger ramp keeps a smaller one's.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade ramp subscriptions 25")]
pub(crate) struct Ramp {
    /// The migration.
    name: String,
    /// The share, in percent.
    #[arg(value_name = "PERCENT", value_parser = advance::percent)]
    percent: crossfade::Ramp,
    #[command(flatten)]
    manner: Manner,
}

impl Ramp {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let operator = connection.operator().await?;
        let registered = operator.database().control.migration(&self.name).await?;
        let order = self.manner.order(Request::Ramp(self.percent), registered.standing.epoch, false);
        let moved = operator.carry_out(&self.name, &order).await?;
        output.result(&moved, advance::text);
        Ok(ExitCode::SUCCESS)
    }
}
