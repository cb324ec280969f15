//! `crossfade snapshot`: both tables as Parquet, as of one moment; and a look into what was written.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use crossfade::DatabaseUrl;
use crossfade::Phase;
use crossfade::backfill::export::{CONNECTIONS, ExportOptions, Exported, Reuse, export_with};
use crossfade::core::connect::AnyDatabase;
use crossfade::core::gate::counted;
use humantime_serde::re::humantime::parse_duration;

use super::connection::Connection;
use super::failure::Failure;
use super::inspect::{Diff, Head, Inspect};
use super::output::Output;
use super::work::Work;

const MEGABYTE: NonZeroU64 = NonZeroU64::new(1_000_000).expect("not zero");

/// Export both sides under one consistent snapshot to Parquet: DIR/old and DIR/new.
///
/// Nothing is locked against writers. A folder is complete or is no snapshot. A lost connection costs the range that it
/// read; the moment itself ends with this process, so that after a kill the command begins anew.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  crossfade snapshot subscriptions --out snapshots/monday\n  crossfade snapshot subscriptions --since snapshots/monday --out snapshots/tuesday\n  crossfade snapshot inspect snapshots/monday\n  \
                  crossfade snapshot diff snapshots/monday 42\n  crossfade snapshot head snapshots/monday --rows 5"
)]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    look: Option<Look>,
    /// The migration.
    #[arg(required = true)]
    name: Option<String>,
    /// The folder to write.
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,
    #[command(flatten)]
    reading: Reading,
}

/// How the databases are read.
#[derive(Debug, Args)]
struct Reading {
    /// Connections that read at the same time; SQLite has one.
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS)]
    connections: NonZeroUsize,
    /// Take over from this earlier snapshot what surely has not changed since (Postgres).
    #[arg(long, value_name = "DIR")]
    since: Option<PathBuf>,
    /// Into how many ranges each side is cut, where not by its size: one in which a row has changed is read again as a whole.
    #[arg(long, value_name = "N", conflicts_with = "since")]
    ranges: Option<NonZeroUsize>,
    /// Megabytes per second to read at most, all connections together.
    #[arg(long, value_name = "N")]
    rate_mb: Option<NonZeroU32>,
    /// How long the moment may be held open, such as 90m or 2h: meanwhile the database cannot remove dead rows.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    max_age: Duration,
    /// Read from this replica (Postgres), once it has replayed everything written so far: a URL, or env:NAME.
    #[arg(long, value_name = "URL")]
    replica: Option<String>,
}

impl Reading {
    async fn options(self) -> Result<ExportOptions, Failure> {
        let mut options = ExportOptions::default();
        options.connections = self.connections;
        options.since = self.since;
        options.ranges = self.ranges;
        options.bytes_per_second_max =
            self.rate_mb.map(|rate| NonZeroU64::from(rate).saturating_mul(MEGABYTE));
        options.age_max = self.max_age;
        if let Some(url) = &self.replica {
            let url = DatabaseUrl::parse(url).map_err(crossfade::core::Error::from)?;
            options.replica = Some(AnyDatabase::connect(&url).await?);
        }
        Ok(options)
    }
}

/// What came out of the earlier snapshot, in a line for each side.
fn taken_over(exported: &Exported, since: &Path) -> String {
    let line = |(side, reuse): (&str, &Reuse)| match &reuse.full_because {
        Some(why) => format!("{side}: exported in full: {why}\n"),
        None => format!(
            "{side}: {} of {} unchanged, taken over from {}\n",
            reuse.taken_over,
            counted(reuse.ranges as u64, "range"),
            since.display()
        ),
    };
    [("old", &exported.reuse_old), ("new", &exported.reuse_new)].map(line).concat()
}

#[derive(Debug, Subcommand)]
enum Look {
    Inspect(Inspect),
    Diff(Diff),
    Head(Head),
}

/// What such a snapshot is good for. From `new_only` on the old store is an archive: nothing is compared with it.
fn next(name: &str, out: &Path, phase: Phase) -> String {
    let folder = out.display();
    match phase {
        Phase::NewOnly => format!(
            "next: look at what is left in {folder}/old; crossfade cleanup {name} --baseline {folder} removes it"
        ),
        Phase::Complete => String::new(),
        _ => format!("next: crossfade scan {name} --snapshot {folder} --out DIR"),
    }
}

impl Snapshot {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        // A migration may be called like one of the commands that look: `--out` says that it is meant.
        let (name, out) = match self.look {
            Some(Look::Inspect(inspect)) => match inspect.out {
                Some(out) => ("inspect".to_owned(), out),
                None => return inspect.run(output),
            },
            Some(Look::Diff(diff)) => match diff.out {
                Some(out) => ("diff".to_owned(), out),
                None => return diff.run(output),
            },
            Some(Look::Head(head)) => match head.out {
                Some(out) => ("head".to_owned(), out),
                None => return head.run(output),
            },
            None => (self.name.unwrap_or_default(), self.out.unwrap_or_default()),
        };
        take(&name, out, self.reading, connection, output).await
    }
}

async fn take(
    name: &str,
    out: PathBuf,
    reading: Reading,
    connection: &Connection,
    output: Output,
) -> Result<ExitCode, Failure> {
    let Work { migration, progress, cancel } = Work::open(name, connection, output).await?;
    let options = reading.options().await?;
    let exported = export_with(&migration, &out, &options, &progress, &cancel).await?;
    let since = options.since.as_deref();
    let (old, new) = (exported.pair.old().manifest(), exported.pair.new_side().manifest());
    let document = serde_json::json!({
        "migration": name,
        "snapshot": out,
        "epoch": exported.standing.epoch,
        "phase": exported.standing.phase,
        "consistent_point": old.consistent_point,
        "rows_old": exported.pair.old().rows(),
        "rows_new": exported.pair.new_side().rows(),
        "since": since,
        "ranges_old": exported.reuse_old,
        "ranges_new": exported.reuse_new,
    });
    output.result(&document, |_| {
        format!(
            "{}: {} and {} at {} (epoch {})\n{}{}",
            out.display(),
            counted(exported.pair.old().rows(), "old row"),
            counted(exported.pair.new_side().rows(), "new row"),
            new.started_at,
            exported.standing.epoch,
            since.map_or_else(String::new, |since| taken_over(&exported, since)),
            next(name, &out, exported.standing.phase)
        )
    });
    Ok(ExitCode::SUCCESS)
}
