//! Asking before something happens.

use clap::Args;

use super::failure::Failure;
use super::output::{self, Output};

/// How a step is confirmed.
#[derive(Debug, Args)]
pub(crate) struct Confirm {
    /// Do not ask.
    #[arg(long, short = 'y')]
    yes: bool,

    /// Confirm a step that can never be undone, by the migration's name.
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
}

impl Confirm {
    /// Asks before a step that can be undone; without a terminal there is nobody to ask, and the
    /// command itself is the confirmation.
    pub(crate) fn step(&self, what: &str, migration: &str, output: Output) -> Result<(), Failure> {
        if self.yes || self.confirm.is_some() || !output.is_interactive() {
            return Ok(());
        }
        let answer = output::ask(&format!("{what}? [y/N]"))?;
        if matches!(answer.as_str(), "y" | "Y" | "yes") {
            return Ok(());
        }
        Err(Failure::Unconfirmed { what: what.to_owned(), migration: migration.to_owned() })
    }

    /// Asks for the name before a step that can never be undone. `--yes` is not enough.
    pub(crate) fn by_name(&self, what: &str, migration: &str, output: Output) -> Result<(), Failure> {
        let typed = match &self.confirm {
            Some(name) => name.clone(),
            None if output.is_interactive() => {
                output::ask(&format!("{what}: this can never be undone. Type the migration's name:"))?
            }
            None => String::new(),
        };
        if typed == migration {
            return Ok(());
        }
        Err(Failure::Unconfirmed { what: what.to_owned(), migration: migration.to_owned() })
    }
}
