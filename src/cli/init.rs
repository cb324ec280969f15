//! `crossfade init`: register a migration.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crossfade::core::control::Registration;

use super::connection::{self, Connection};
use super::failure::Failure;
use super::output::Output;
use super::{advance, check};

/// Create the control tables and register a migration; again with a changed manifest, update it.
///
/// Thresholds may change in any phase, which is recorded in the history; the mapping only in old_only.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade init subscriptions.toml")]
pub(crate) struct Init {
    /// The manifest.
    manifest: PathBuf,
}

impl Init {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let manifest = connection::manifest(&self.manifest)?;
        let operator = connection.operator_of(&manifest).await?;
        let initialised = operator.init(&manifest, &advance::actor()).await?;
        output.result(&initialised, |initialised| {
            let name = &initialised.migration;
            let what = match initialised.registration {
                Registration::Created => "registered",
                Registration::Unchanged => "already registered, nothing changed",
                Registration::Updated => "updated",
            };
            format!("{}{name}: {what}\nnext: crossfade plan {name}", check::text(name, &initialised.check))
        });
        Ok(ExitCode::SUCCESS)
    }
}
