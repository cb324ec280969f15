//! `crossfade cleanup`: the old data, removed.

use std::process::ExitCode;

use clap::Args;
use crossfade::backfill::cleanup::{CleanupOptions, cleanup};
use crossfade::core::gate::{counted, grouped};

use super::connection::Connection;
use super::failure::{self, Failure};
use super::output::Output;
use super::place::{Place, Stores};
use super::work::{Tuning, Work};

/// Remove the moved data from the old store, in new_only, and look what is left.
///
/// A row is removed only while it is still what the verification saw that opened new_only; whatever else stands there was
/// written past crossfade: it is reported and left. Exits with 4 when anything is left.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade cleanup subscriptions")]
pub(crate) struct Cleanup {
    /// The migration.
    name: String,
    /// The snapshot whose old side says what may be removed; by default the verification's.
    #[arg(long, value_name = "DIR|URL")]
    baseline: Option<Place>,
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    stores: Stores,
}

impl Cleanup {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let Work { migration, progress, cancel } = Work::open(&self.name, connection, output).await?;
        let found = match self.baseline {
            Some(place) => Some(self.stores.pair(place, &progress, &cancel, output).await?),
            None => None,
        };
        let baseline = found.as_ref().map(|found| found.path.clone());
        let options = CleanupOptions { tunables: self.tuning.tunables(&migration), baseline };
        let cleaned = cleanup(&migration, &self.stores.work.root, &options, &progress, &cancel).await?;
        output.result(&cleaned, |cleaned| {
            let mut text = format!(
                "{}\nretired {}, left {}; {} of {} still in the old store\n",
                cleaned.baseline,
                counted(cleaned.retired, "key"),
                grouped(cleaned.kept),
                counted(cleaned.rows_left, "row"),
                counted(cleaned.keys_left, "key")
            );
            if cleaned.clean {
                text.push_str(&format!("next: crossfade advance {}\n", self.name));
            } else {
                text.push_str(&format!(
                    "the first of them: {}\nlook at them: they were written past crossfade, or between the verification and new_only. \
                     If they may go:\n  crossfade snapshot {} --out DIR && crossfade cleanup {} --baseline DIR\n",
                    cleaned.left.join(", "),
                    self.name,
                    self.name
                ));
            }
            text
        });
        Ok(if cleaned.clean { ExitCode::SUCCESS } else { ExitCode::from(failure::DIFFERENCES) })
    }
}
