//! `crossfade snapshot`: both tables as Parquet, as of one moment; and a look into what was written.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use crossfade::backfill::export::export;
use crossfade::core::gate::counted;

use super::connection::Connection;
use super::failure::Failure;
use super::inspect::{Diff, Head, Inspect};
use super::output::Output;
use super::work::Work;

/// Export both sides under one consistent snapshot to Parquet: DIR/old and DIR/new.
///
/// Nothing is locked against writers. A folder is complete or is no snapshot: after a kill, run it again.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  crossfade snapshot subscriptions --out snapshots/monday\n  crossfade snapshot inspect snapshots/monday\n  \
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
}

#[derive(Debug, Subcommand)]
enum Look {
    Inspect(Inspect),
    Diff(Diff),
    Head(Head),
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
        take(&name, out, connection, output).await
    }
}

async fn take(
    name: &str,
    out: PathBuf,
    connection: &Connection,
    output: Output,
) -> Result<ExitCode, Failure> {
    let Work { migration, progress, cancel } = Work::open(name, connection, output).await?;
    let exported = export(&migration, &out, &progress, &cancel).await?;
    let (old, new) = (exported.pair.old().manifest(), exported.pair.new_side().manifest());
    let document = serde_json::json!({
        "migration": name,
        "snapshot": out,
        "epoch": exported.standing.epoch,
        "phase": exported.standing.phase,
        "consistent_point": old.consistent_point,
        "rows_old": exported.pair.old().rows(),
        "rows_new": exported.pair.new_side().rows(),
    });
    output.result(&document, |_| {
        format!(
            "{}: {} and {} at {} (epoch {})\nnext: crossfade scan {name} --snapshot {} --out DIR",
            out.display(),
            counted(exported.pair.old().rows(), "old row"),
            counted(exported.pair.new_side().rows(), "new row"),
            new.started_at,
            exported.standing.epoch,
            out.display()
        )
    });
    Ok(ExitCode::SUCCESS)
}
