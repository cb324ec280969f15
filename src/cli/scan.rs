//! `crossfade scan`: two snapshots compared, offline.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use crossfade::backfill::Cancel;
use crossfade::backfill::scan::ScanOptions;
use crossfade::backfill::snapshot::Requirements;
use crossfade::backfill::verify::Differences;
use crossfade::core::gate::grouped;

use super::connection::Connection;
use super::dumps::DumpArguments;
use super::engine::{Engine, Sides};
use super::failure::{self, Failure};
use super::output::Output;
use super::place::{Found, Place, Stores};
use super::progress::{self, Shown};
use super::work::{self, Scanning, Work};

/// Compare the two sides of a snapshot and write what differs as Parquet, cut into chunks.
///
/// Instead of a snapshot, two dumps that any other tool wrote can be compared, as they are. A scan that was stopped goes on
/// when the same command is run again. Exits with 4 when anything differs.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  crossfade scan subscriptions --snapshot snapshots/monday --out findings/monday\n  \
                  crossfade scan subscriptions --snapshot s3://backups/subscriptions/monday --out findings/monday\n  \
                  crossfade scan --old dumps/projected --new dumps/subscriptions.parquet --key customer_id,id --out findings/dumps"
)]
pub(crate) struct Scan {
    /// The migration; dumps can be compared without one.
    #[arg(required_unless_present = "old")]
    name: Option<String>,
    /// The snapshot's folder, or its URL in an object store.
    #[arg(long, value_name = "DIR|URL", required_unless_present = "old")]
    snapshot: Option<Place>,
    /// The folder to write findings to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Compare a snapshot of an older epoch. What is found can be looked at; it counts for no gate, and is not copied.
    #[arg(long)]
    stale: bool,
    /// Who compares: `local`, or the DataFusion Ballista cluster at df://HOST:PORT.
    #[arg(long, value_name = "ENGINE", default_value = "local")]
    engine: Engine,
    #[command(flatten, next_help_heading = "Dumps of other tools")]
    dumps: DumpArguments,
    #[command(flatten, next_help_heading = "Object stores")]
    stores: Stores,
    #[command(flatten, next_help_heading = "Resources")]
    scanning: Scanning,
}

impl Scan {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let comparison = if self.dumps.are_given() {
            self.of_dumps(connection, output).await?
        } else {
            self.of_snapshots(connection, output).await?
        };
        comparison.run(output).await
    }

    async fn of_snapshots(self, connection: &Connection, output: Output) -> Result<Comparison, Failure> {
        let (Some(name), Some(snapshot)) = (self.name, self.snapshot) else {
            // The parser has asked for both.
            return Err(Failure::Usage {
                what: "no snapshot was named".into(),
                hint: "pass --snapshot DIR".into(),
            });
        };
        let Work { migration, progress, cancel } = Work::open(&name, connection, output).await?;
        let plan = &migration.subject.plan;
        let standing = migration.standing().await?;
        let found = self.stores.pair(snapshot, &progress, &cancel, output).await?;
        let pair = found.open()?;
        pair.require(&Requirements {
            migration: plan.name().to_owned(),
            manifest_hash: plan.fingerprint().to_owned(),
            epoch_min: if self.stale { 0 } else { u64::try_from(standing.epoch.0).unwrap_or(0) },
        })?;
        let taken_at = pair.old().manifest().epoch;
        if i64::try_from(taken_at) != Ok(standing.epoch.0) {
            output.note(&format!(
                "warning: the snapshot began in epoch {taken_at}, and the migration is at epoch {}: what is found can be looked at, \
                 and not be copied",
                standing.epoch
            ));
        }
        Ok(Comparison {
            sides: Sides::Snapshots(Box::new(pair)),
            options: self.scanning.options(),
            engine: self.engine,
            next: copy_next(&name, &self.out),
            out: self.out,
            progress,
            cancel,
            found: vec![found],
        })
    }

    async fn of_dumps(mut self, connection: &Connection, output: Output) -> Result<Comparison, Failure> {
        let mut options = self.scanning.options();
        options.unordered_bytes_max = self.dumps.memory().unwrap_or(options.unordered_bytes_max);
        let (migration, progress, cancel) = match &self.name {
            Some(name) => {
                let Work { migration, progress, cancel } = Work::open(name, connection, output).await?;
                (Some(migration), progress, cancel)
            }
            None => (None, Shown::new(output), progress::cancel_on_interrupt(output)),
        };
        let [old, new] = self.dumps.places()?;
        let old = self.stores.dump(old, &progress, &cancel, output).await?;
        let new = self.stores.dump(new, &progress, &cancel, output).await?;
        let plan = migration.as_ref().map(|migration| &migration.subject.plan);
        let dumps = self.dumps.dumps([&old, &new], plan)?;
        let next = match &self.name {
            Some(name) => copy_next(name, &self.out),
            None => format!("findings: {}\n", self.out.display()),
        };
        Ok(Comparison {
            sides: Sides::Dumps(Box::new(dumps)),
            options,
            engine: self.engine,
            next,
            out: self.out,
            progress,
            cancel,
            found: vec![old, new],
        })
    }
}

fn copy_next(name: &str, out: &Path) -> String {
    format!("next: crossfade copy {name} --findings {}\n", out.display())
}

/// All that a scan needs, whatever is compared.
struct Comparison {
    sides: Sides,
    options: ScanOptions,
    engine: Engine,
    /// What to do with what is found.
    next: String,
    out: PathBuf,
    progress: Shown,
    cancel: Cancel,
    /// What is compared, which nobody may change meanwhile.
    found: Vec<Found>,
}

impl Comparison {
    async fn run(self, output: Output) -> Result<ExitCode, Failure> {
        if let Some(note) = self.engine.note() {
            output.note(&note);
        }
        let begun = Instant::now();
        let findings = self.out.clone();
        let scanning = self.engine.scan(self.sides, findings, &self.options, &self.progress, &self.cancel);
        let summary = scanning.await?;
        drop(self.found);
        if summary.columns.as_ref().is_some_and(Vec::is_empty) {
            output.note("keys alone were compared: rows that differ in their values were not looked for");
        }
        let rows = summary.rows_old + summary.rows_new;
        output.note(&format!("compared {} rows in {:.1} s", grouped(rows), begun.elapsed().as_secs_f64()));
        let found = Differences::of(&summary, &self.out);
        output.result(&summary, |_| {
            let next = if summary.is_clean() { "nothing differs\n" } else { &self.next };
            work::differences(&found) + next
        });
        Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(failure::DIFFERENCES) })
    }
}
