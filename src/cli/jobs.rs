//! `crossfade jobs`, `pause`, `resume`, `cancel` and `tune`: the jobs of a migration and what is wanted of them.

use std::process::ExitCode;

use clap::Args;
use crossfade::backfill::queue::{self, Change, Job, JobId, Queue, Request, Tunables};
use crossfade::core::gate::{counted, grouped};
use std::sync::Arc;

use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;
use super::work::Tuning;

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
    #[command(flatten)]
    tuning: Tuning,
}

impl Tune {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let Tune { choice, tuning } = self;
        if !tuning.is_anything_said() {
            return Err(Failure::Usage {
                what: "nothing was said of how the job is to run".to_owned(),
                hint: "crossfade tune --help lists what can be changed".to_owned(),
            });
        }
        choice.change(connection, output, |job| Change::Tune(tuning.over(job.tunables).clamped())).await
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
    let Tunables { workers, batch_keys_max, batch_ms, work_percent } = job.tunables;
    let mut line = format!(
        "job {} {}: {state}{}, {} of {} chunks, {} of {} keys; copied {}, repaired {}, removed {}, retired {}, left {}\n",
        job.id.0,
        word(serde_json::json!(job.kind)),
        if job.state.is_finished() {
            String::new()
        } else if wanted != "run" {
            format!(" ({wanted} requested)")
        } else if job.chunks_leased == 0 {
            // Running says what is wanted, not that anybody does it.
            " (no worker is at it now)".to_owned()
        } else {
            String::new()
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
    if !job.state.is_finished() {
        line.push_str(&format!(
            "  workers {workers}, at most {} and {batch_ms} ms in one transaction, working {work_percent} % of the time\n",
            counted(batch_keys_max.into(), "key")
        ));
    }
    if let Some(error) = &job.error {
        line.push_str(&format!("  {error}\n"));
    }
    line
}
