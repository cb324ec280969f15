//! What the commands on snapshots, findings and jobs have in common.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use crossfade::backfill::queue::Tunables;
use crossfade::backfill::scan::ScanOptions;
use crossfade::backfill::verify::Differences;
use crossfade::backfill::{Cancel, Migration};
use crossfade::core::gate::{counted, grouped};

use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;
use super::progress::{self, Shown};

/// Where work folders are.
#[derive(Debug, Args)]
pub(crate) struct WorkFolder {
    /// The folder for snapshots and findings; it needs room for both tables, compressed.
    #[arg(long = "work", value_name = "DIR", env = "CROSSFADE_WORK", default_value = "crossfade-work")]
    pub(crate) root: PathBuf,
}

/// How jobs run. A job that is gone on with keeps its own settings, which `crossfade tune` changes.
#[derive(Debug, Args)]
pub(crate) struct Tuning {
    /// Workers in each process.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: Option<u32>,
    /// Keys in one transaction, at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch_keys_max: Option<u32>,
    /// How long one transaction should take, in milliseconds.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(5..=1_000))]
    batch_ms: Option<u32>,
    /// The share of its time that a worker works, in percent; the rest it leaves to the application.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    work_percent: Option<u32>,
}

impl Tuning {
    /// The settings of a new job; the engine's own where nothing was said.
    pub(crate) fn tunables(&self, migration: &Migration) -> Option<Tunables> {
        self.is_anything_said().then(|| self.over(migration.tunables))
    }

    /// These settings, but for what was said.
    pub(crate) fn over(&self, present: Tunables) -> Tunables {
        Tunables {
            workers: self.workers.unwrap_or(present.workers),
            batch_keys_max: self.batch_keys_max.unwrap_or(present.batch_keys_max),
            batch_ms: self.batch_ms.unwrap_or(present.batch_ms),
            work_percent: self.work_percent.unwrap_or(present.work_percent),
        }
    }

    /// Whether there is a word on any of them.
    pub(crate) fn is_anything_said(&self) -> bool {
        [self.workers, self.batch_keys_max, self.batch_ms, self.work_percent].iter().any(Option::is_some)
    }
}

/// How scans run.
#[derive(Debug, Args)]
pub(crate) struct Scanning {
    /// Threads that compare; by default all of the machine's.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Scanning {
    pub(crate) fn options(&self) -> ScanOptions {
        let mut options = ScanOptions::default();
        options.threads = self.threads.unwrap_or(options.threads);
        options
    }
}

/// A migration, with what a long operation on it takes.
pub(crate) struct Work {
    pub(crate) migration: Migration,
    pub(crate) progress: Shown,
    pub(crate) cancel: Cancel,
}

impl Work {
    pub(crate) async fn open(name: &str, connection: &Connection, output: Output) -> Result<Work, Failure> {
        let operator = connection.operator().await?;
        let registered = operator.database().control.migration(name).await?;
        let subject = operator.subject(&registered).await?;
        Ok(Work {
            migration: Migration::new(operator.database(), subject),
            progress: Shown::new(output),
            cancel: progress::cancel_on_interrupt(output),
        })
    }
}

/// Differences for people.
pub(crate) fn differences(found: &Differences) -> String {
    format!(
        "{} and {}: missing {}, mismatched {}, orphaned {}, duplicated {}\n",
        counted(found.rows_old, "old row"),
        counted(found.rows_new, "new row"),
        grouped(found.missing),
        grouped(found.mismatched),
        grouped(found.orphaned),
        grouped(found.duplicated)
    )
}
