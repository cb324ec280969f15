//! `crossfade snapshot`: both tables as Parquet, as of one moment; and a look into what was written.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use crossfade::DatabaseUrl;
use crossfade::Phase;
use crossfade::backfill::export::{CONNECTIONS, ExportOptions, Exported, Reuse, export_with, interrupted};
use crossfade::backfill::remote::{Remote, Staging};
use crossfade::backfill::snapshot::{Requirements, SnapshotPair};
use crossfade::backfill::{Error, Migration};
use crossfade::core::connect::AnyDatabase;
use crossfade::core::gate::counted;
use humantime_serde::re::humantime::parse_duration;

use super::connection::Connection;
use super::failure::Failure;
use super::inspect::{Diff, Head, Inspect};
use super::output::Output;
use super::place::{Place, Stores};
use super::work::Work;

const MEGABYTE: NonZeroU64 = NonZeroU64::new(1_000_000).expect("not zero");

/// Export both sides under one consistent snapshot to Parquet: DIR/old and DIR/new, in a folder or in an object store.
///
/// Nothing is locked against writers. A folder is complete or is no snapshot. A lost connection costs the range that it
/// read. The moment itself ends with this process: after a kill the same command takes another one, and takes over those of the
/// finished ranges in which surely nothing has changed since (Postgres; on SQLite it begins anew). For an object store the
/// snapshot is written to the work folder, sent, and removed there; a kill while it is sent costs the file in hand.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  crossfade snapshot subscriptions --out snapshots/monday\n  \
                  crossfade snapshot subscriptions --since snapshots/monday --out snapshots/tuesday\n  \
                  crossfade snapshot subscriptions --out s3://backups/subscriptions/monday\n  crossfade snapshot inspect snapshots/monday\n  \
                  crossfade snapshot diff snapshots/monday 42\n  crossfade snapshot head snapshots/monday --rows 5"
)]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    look: Option<Look>,
    /// The migration.
    #[arg(required = true)]
    name: Option<String>,
    /// The folder to write, or a URL in an object store: s3://BUCKET/PREFIX, gs://… or az://….
    #[arg(long, value_name = "DIR|URL", required = true)]
    out: Option<Place>,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten, next_help_heading = "Object stores")]
    stores: Stores,
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
    /// Begin anew where an earlier run was interrupted, rather than take over what it had finished.
    #[arg(long)]
    fresh: bool,
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
        options.fresh = self.fresh;
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

/// A pair, and what of each side was taken over from an earlier one; nothing where that was an earlier run's business.
struct Taken {
    pair: SnapshotPair,
    reuses: Option<[Reuse; 2]>,
}

impl From<Exported> for Taken {
    fn from(Exported { pair, reuse_old, reuse_new, .. }: Exported) -> Taken {
        Taken { pair, reuses: Some([reuse_old, reuse_new]) }
    }
}

impl Taken {
    /// What came out of earlier exports, in a line for each side and export.
    fn told(&self, since: Option<&Path>) -> String {
        let reuses = self.reuses.iter().flat_map(|[old, new]| [("old", old), ("new", new)]);
        reuses.map(|(side, reuse)| told(side, reuse, since)).collect()
    }
}

fn told(side: &str, reuse: &Reuse, since: Option<&Path>) -> String {
    let ranges = counted(reuse.ranges as u64, "range");
    let taken =
        |count: usize, from: &str| format!("{side}: {count} of {ranges} unchanged, taken over from {from}\n");
    let mut text = String::new();
    if let Some(why) = &reuse.anew_because {
        text += &format!("{side}: nothing taken over from the interrupted run: {why}\n");
    } else if reuse.resumed > 0 {
        text += &taken(reuse.resumed, "the interrupted run");
    }
    match (since, &reuse.full_because) {
        (Some(_), Some(why)) => text += &format!("{side}: exported in full: {why}\n"),
        (Some(since), None) => text += &taken(reuse.taken_over - reuse.resumed, &since.display().to_string()),
        (None, _) => {}
    }
    text
}

/// Says that an earlier run was interrupted, before an export that may take hours.
fn note_interrupted(out: &Path, options: &ExportOptions, output: Output) {
    let Some(left) = interrupted(out) else { return };
    let begun = left.started_at.map_or_else(String::new, |at| format!(" of {at}"));
    let finished = format!("{} of {}", left.finished, counted(left.ranges as u64, "range"));
    output.note(&if options.fresh {
        format!("beginning anew: what an interrupted run{begun} has left is replaced")
    } else if left.finished == 0 {
        format!("beginning anew: an interrupted run{begun} has left no finished range")
    } else {
        format!("going on with an interrupted run{begun}, which had finished {finished}: what has changed since is read again")
    });
}

#[derive(Debug, Subcommand)]
enum Look {
    Inspect(Inspect),
    Diff(Diff),
    Head(Head),
}

/// What such a snapshot is good for. From `new_only` on the old store is an archive: nothing is compared with it.
fn next(name: &str, folder: &Place, phase: &str) -> String {
    match phase.parse() {
        Ok(Phase::NewOnly) => format!(
            "next: look at what is left in {folder}/old; crossfade cleanup {name} --baseline {folder} removes it"
        ),
        Ok(Phase::Complete) => String::new(),
        _ => format!("next: crossfade scan {name} --snapshot {folder} --out DIR"),
    }
}

impl Snapshot {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        // A migration may be called like one of the commands that look: `--out` says that it is meant.
        let (name, out) = match self.look {
            Some(Look::Inspect(inspect)) => match inspect.out {
                Some(out) => ("inspect".to_owned(), out),
                None => return inspect.run(output).await,
            },
            Some(Look::Diff(diff)) => match diff.out {
                Some(out) => ("diff".to_owned(), out),
                None => return diff.run(output).await,
            },
            Some(Look::Head(head)) => match head.out {
                Some(out) => ("head".to_owned(), out),
                None => return head.run(output).await,
            },
            None => match (self.name, self.out) {
                (Some(name), Some(out)) => (name, out),
                // The parser has asked for both.
                _ => {
                    let what = "neither a migration nor a place for its snapshot was named".into();
                    return Err(Failure::Usage { what, hint: "pass NAME --out DIR".into() });
                }
            },
        };
        let work = Work::open(&name, connection, output).await?;
        let options = self.reading.options().await?;
        let since = options.since.as_deref();
        match &out {
            Place::Local(folder) => {
                note_interrupted(folder, &options, output);
                let exported = export_with(&work.migration, folder, &options, &work.progress, &work.cancel);
                report(&name, &out, &exported.await?.into(), since, output);
            }
            Place::Remote(url) => {
                let remote = self.stores.remote(url)?;
                let staging = self.stores.staging(&remote)?;
                let taken = exported(&work, &remote, &staging, &options, output).await?;
                remote.publish(&staging.outgoing(), &work.progress, &work.cancel).await?;
                report(&name, &out, &taken, since, output);
                staging.remove()?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The pair that is to be sent: one that an earlier run was killed with while it was sent, or else a new one.
async fn exported(
    work: &Work,
    remote: &Remote,
    staging: &Staging,
    options: &ExportOptions,
    output: Output,
) -> Result<Taken, Failure> {
    if let Some(pair) = unsent(&work.migration, staging).await? {
        output.note(&format!(
            "going on with the snapshot of {}, which an earlier run has not sent whole",
            pair.new_side().manifest().started_at
        ));
        return Ok(Taken { pair, reuses: None });
    }
    // Before an export that may take hours: nobody wants to hear of it afterwards.
    if !remote.is_vacant().await? {
        return Err(Error::SnapshotPresent { path: remote.url().into() }.into());
    }
    let folder = staging.outgoing();
    if interrupted(&folder).is_none() {
        staging.clear(&folder)?;
    }
    note_interrupted(&folder, options, output);
    Ok(export_with(&work.migration, &folder, options, &work.progress, &work.cancel).await?.into())
}

/// A whole pair that still counts for the migration as it stands.
async fn unsent(migration: &Migration, staging: &Staging) -> Result<Option<SnapshotPair>, Failure> {
    let Ok(pair) = SnapshotPair::open(staging.outgoing()) else { return Ok(None) };
    let plan = &migration.subject.plan;
    let requirements = Requirements {
        migration: plan.name().to_owned(),
        manifest_hash: plan.fingerprint().to_owned(),
        epoch_min: u64::try_from(migration.standing().await?.epoch.0).unwrap_or(0),
    };
    Ok(pair.require(&requirements).is_ok().then_some(pair))
}

fn report(name: &str, out: &Place, taken: &Taken, since: Option<&Path>, output: Output) {
    let (old, new) = (taken.pair.old().manifest(), taken.pair.new_side().manifest());
    let document = serde_json::json!({
        "migration": name,
        "snapshot": out.to_string(),
        "epoch": old.epoch,
        "phase": old.phase,
        "consistent_point": old.consistent_point,
        "rows_old": taken.pair.old().rows(),
        "rows_new": taken.pair.new_side().rows(),
        "since": since,
        "ranges_old": taken.reuses.as_ref().map(|[old, _]| old),
        "ranges_new": taken.reuses.as_ref().map(|[_, new]| new),
    });
    output.result(&document, |_| {
        format!(
            "{out}: {} and {} at {} (epoch {})\n{}{}",
            counted(taken.pair.old().rows(), "old row"),
            counted(taken.pair.new_side().rows(), "new row"),
            new.started_at,
            old.epoch,
            taken.told(since),
            next(name, out, &old.phase)
        )
    });
}
