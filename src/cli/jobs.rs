//! `crossfade jobs`, `pause`, `resume`, `cancel` and `tune`: the jobs of a migration and what is wanted of them.

use std::process::ExitCode;

use clap::Args;
use crossfade::backfill::queue::{self, Change, Job, JobId, Queue, Request};
use crossfade::core::gate::grouped;
use std::sync::Arc;

use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;

/// List the jobs of a migration, newest first.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade jobs subscriptions")]
pub(crate) struct Jobs {
    /// The migration.
    name: String,
}

impl Jobs {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let (queue, jobs) = open(&self.name, connection).await?;
        drop(queue);
        output.result(&jobs, |jobs| match jobs.as_slice() {
            [] => format!("{}: no jobs", self.name),
            jobs => jobs.iter().map(line).collect(),
        });
        Ok(ExitCode::SUCCESS)
    }
}

/// Which job an order is for.
#[derive(Debug, Args)]
struct Choice {
    /// The migration.
    name: String,
    /// The job's number; by default the one that is not finished.
    #[arg(long, value_name = "NUMBER")]
    job: Option<i64>,
}

impl Choice {
    async fn change(
        self,
        connection: &Connection,
        output: Output,
        change: impl FnOnce(&Job) -> Change,
    ) -> Result<ExitCode, Failure> {
        let (queue, jobs) = open(&self.name, connection).await?;
        let chosen = match self.job {
            Some(number) => jobs.iter().find(|job| job.id == JobId(number)),
            None => jobs.iter().find(|job| !job.state.is_finished()),
        };
        let Some(job) = chosen else {
            let what = match self.job {
                Some(number) => format!("migration {} has no job {number}", self.name),
                None => format!("migration {} has no unfinished job", self.name),
            };
            return Err(Failure::Usage { what, hint: format!("crossfade jobs {} lists them", self.name) });
        };
        let job = queue.change(job.id, change(job)).await?;
        output.result(&job, line);
        Ok(ExitCode::SUCCESS)
    }
}

/// Stop a job's workers after the batches in flight, until it is resumed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade pause subscriptions")]
pub(crate) struct Pause {
    #[command(flatten)]
    choice: Choice,
}

impl Pause {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        self.choice.change(connection, output, |_| Change::Request(Request::Pause)).await
    }
}

/// Let a paused job go on.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade resume subscriptions")]
pub(crate) struct Resume {
    #[command(flatten)]
    choice: Choice,
}

impl Resume {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        self.choice.change(connection, output, |_| Change::Request(Request::Run)).await
    }
}

/// Give a job up for good. What it has done stays done.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade cancel subscriptions")]
pub(crate) struct Cancel {
    #[command(flatten)]
    choice: Choice,
}

impl Cancel {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        self.choice.change(connection, output, |_| Change::Request(Request::Cancel)).await
    }
}

/// Change how a job runs, while it runs.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade tune subscriptions --batch-keys-max 500 --work-percent 50")]
pub(crate) struct Tune {
    #[command(flatten)]
    choice: Choice,
    /// Workers in each process.
    #[arg(long)]
    workers: Option<u32>,
    /// Keys in one transaction, at most.
    #[arg(long)]
    batch_keys_max: Option<u32>,
    /// How long one transaction should take, in milliseconds.
    #[arg(long)]
    batch_ms: Option<u32>,
    /// The share of its time that a worker works, in percent; the rest it leaves to the application.
    #[arg(long)]
    work_percent: Option<u32>,
}

impl Tune {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let Tune { choice, workers, batch_keys_max, batch_ms, work_percent } = self;
        choice
            .change(connection, output, |job| {
                let mut tunables = job.tunables;
                let set = |value: &mut u32, wanted: Option<u32>| *value = wanted.unwrap_or(*value);
                set(&mut tunables.workers, workers);
                set(&mut tunables.batch_keys_max, batch_keys_max);
                set(&mut tunables.batch_ms, batch_ms);
                set(&mut tunables.work_percent, work_percent);
                Change::Tune(tunables.clamped())
            })
            .await
    }
}

async fn open(name: &str, connection: &Connection) -> Result<(Arc<dyn Queue>, Vec<Job>), Failure> {
    let operator = connection.operator().await?;
    let registered = operator.database().control.migration(name).await?;
    let queue = queue::queue(&operator.database().pool);
    let jobs = queue.jobs(registered.id).await?;
    Ok((queue, jobs))
}

/// A job for people.
pub(crate) fn line(job: &Job) -> String {
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let state = word(serde_json::json!(job.state));
    let wanted = word(serde_json::json!(job.requested));
    let mut line = format!(
        "job {} {}: {state}{}, {} of {} chunks, {} of {} keys; copied {}, repaired {}, removed {}, retired {}, left {}\n",
        job.id.0,
        word(serde_json::json!(job.kind)),
        if wanted == "run" || job.state.is_finished() {
            String::new()
        } else {
            format!(" ({wanted} requested)")
        },
        job.chunks_done,
        job.chunks,
        grouped(job.done.keys_done),
        grouped(job.keys),
        grouped(job.done.copied),
        grouped(job.done.repaired),
        grouped(job.done.removed),
        grouped(job.done.retired),
        grouped(job.done.kept),
    );
    if let Some(error) = &job.error {
        line.push_str(&format!("  {error}\n"));
    }
    line
}
