//! The jobs of the migration, as the command line runs them, and one that is killed.

use std::path::PathBuf;
use std::process::Stdio;

use crossfade::backfill::cleanup::{Cleaned, CleanupOptions, cleanup};
use crossfade::backfill::closing::{self, Closed};
use crossfade::backfill::progress::{Progress, Stage, Update};
use crossfade::backfill::queue::{Change, Job, JobKind, Tunables};
use crossfade::backfill::rounds::{BackfillOptions, Backfilled, backfill};
use crossfade::backfill::scan::ScanOptions;
use crossfade::backfill::verify::{Verification, verify};
use crossfade::backfill::workspace::Workspace;
use crossfade::backfill::{Cancel, Migration};
use crossfade::{AnyDatabase, DatabaseUrl, Operator, Order};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::story::{Failure, NAME};

/// The hidden argument by which this program runs as a backfill and nothing else.
pub(crate) const WORKER_ARGUMENT: &str = "--backfill-in";

/// How the backfill runs that is to be killed: in many small transactions and a tenth of the time, so that
/// there is a middle to kill it in.
const POLITE: Tunables = Tunables { workers: 1, batch_keys_max: 1_000, batch_ms: 20, work_percent: 10 };

/// Batches that even the smallest show has.
const BATCHES_MIN: u32 = 50;

/// The files of the show.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) folder: PathBuf,
}

impl Files {
    /// The service's database.
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.join("service.db")
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}", self.database().display())
    }

    /// Where jobs put their snapshots and findings.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// An operator on the database.
    pub(crate) async fn operator(&self) -> Result<Operator, Failure> {
        let url = DatabaseUrl::parse(&self.url()).map_err(crossfade::Error::from)?;
        Ok(Operator::new(AnyDatabase::connect(&url).await?))
    }
}

/// What became of a backfill that was killed.
pub(crate) struct Killed {
    /// How many keys it had copied by its own account, and of how many.
    pub(crate) keys_done: u64,
    pub(crate) keys: u64,
    /// The job that it has left.
    pub(crate) job: Job,
}

/// `crossfade backfill`.
pub(crate) async fn run_backfill(
    operator: &Operator,
    files: &Files,
    tunables: Option<Tunables>,
    progress: &dyn Progress,
) -> Result<Backfilled, Failure> {
    let options = BackfillOptions { tunables, ..BackfillOptions::default() };
    Ok(backfill(&migration(operator).await?, &files.work(), &options, progress, &Cancel::new()).await?)
}

/// `crossfade verify`.
pub(crate) async fn run_verify(
    operator: &Operator,
    files: &Files,
    progress: &dyn Progress,
) -> Result<Verification, Failure> {
    let round = Workspace::open(&files.work(), NAME)?.begin_round()?;
    let migration = migration(operator).await?;
    Ok(verify(&migration, &round, &ScanOptions::default(), progress, &Cancel::new()).await?)
}

/// `crossfade advance`, by which nothing writes the old store any more.
pub(crate) async fn close(
    operator: &Operator,
    files: &Files,
    order: &Order,
    progress: &dyn Progress,
) -> Result<Closed, Failure> {
    let migration = migration(operator).await?;
    Ok(closing::close(operator, &migration, order, &files.work(), progress, &Cancel::new()).await?)
}

/// `crossfade cleanup`.
pub(crate) async fn run_cleanup(
    operator: &Operator,
    files: &Files,
    progress: &dyn Progress,
) -> Result<Cleaned, Failure> {
    let options = CleanupOptions::default();
    Ok(cleanup(&migration(operator).await?, &files.work(), &options, progress, &Cancel::new()).await?)
}

/// Runs a backfill in a process of its own and kills it, `kill -9`, when a third is copied.
pub(crate) async fn kill_backfill(
    operator: &Operator,
    files: &Files,
    customers: i64,
    progress: &dyn Progress,
) -> Result<Killed, Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(WORKER_ARGUMENT)
        .arg(&files.folder)
        .arg(format!("--customers={customers}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().ok_or("the backfill has no output")?;
    let mut lines = BufReader::new(stdout).lines();
    let (mut keys_done, mut keys) = (0, 0);
    while let Some(line) = lines.next_line().await? {
        let mut numbers = line.split(' ').map(str::parse);
        let (Some(done), Some(total), Some(rate)) = (numbers.next(), numbers.next(), numbers.next()) else {
            continue;
        };
        (keys_done, keys) = (done?, total?);
        let (done, total, rate) = (keys_done, Some(keys), rate? as f64);
        progress.update(&Update {
            stage: Stage::Copy,
            done,
            total,
            is_estimate: false,
            rate,
            eta: None,
            waiting: None,
            ranges_taken_over: 0,
        });
        if keys_done >= keys / 3 {
            break;
        }
    }
    // On Unix this is SIGKILL: nothing of the process is asked, and nothing can clean up.
    child.kill().await?;
    let job = unfinished_copy(operator).await?.ok_or("the backfill was through before it could be killed")?;
    Ok(Killed { keys_done, keys, job })
}

/// What runs in that process.
pub(crate) async fn be_killed(files: &Files, customers: u32) -> Result<(), Failure> {
    let operator = files.operator().await?;
    let batch_keys_max = POLITE.batch_keys_max.min(customers / BATCHES_MIN);
    let tunables = Tunables { batch_keys_max, ..POLITE };
    run_backfill(&operator, files, Some(tunables), &Report).await?;
    Ok(())
}

/// `crossfade tune`: gives an unfinished copy its full speed back.
pub(crate) async fn speed_up(operator: &Operator, job: &Job) -> Result<(), Failure> {
    let migration = migration(operator).await?;
    migration.queue.change(job.id, Change::Tune(migration.tunables)).await?;
    Ok(())
}

/// Tells the parent how many keys are copied, of how many, and how many per second.
struct Report;

impl Progress for Report {
    #[expect(clippy::print_stdout, reason = "the parent reads it")]
    fn update(&self, update: &Update) {
        if let (Stage::Copy, Some(total)) = (update.stage, update.total) {
            println!("{} {total} {:.0}", update.done, update.rate);
        }
    }
}

async fn unfinished_copy(operator: &Operator) -> Result<Option<Job>, Failure> {
    let migration = migration(operator).await?;
    let jobs = migration.queue.jobs(migration.subject.id).await?;
    Ok(jobs.into_iter().find(|job| job.kind == JobKind::Copy && !job.state.is_finished()))
}

async fn migration(operator: &Operator) -> Result<Migration, Failure> {
    let registered = operator.database().control.migration(NAME).await?;
    Ok(Migration::new(operator.database(), operator.subject(&registered).await?))
}
