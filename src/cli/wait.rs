//! `crossfade wait`: until a phase is reached everywhere, a job has ended, or the next gate is open.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use crossfade::backfill::queue::{self, Job, JobId, JobState};
use crossfade::core::fleet;
use crossfade::core::gate::{GateReport, counted, spell};
use crossfade::{Epoch, Operator, Phase};
use serde::Serialize;

use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;
use super::{jobs, plan};

/// How often it is looked: soon enough for a script, and a few small queries.
const POLL: Duration = Duration::from_millis(500);

/// How often what a gate asks for is proven afresh where that alone keeps it shut: proving runs the mapping on sample rows.
const PROVE_EVERY: Duration = Duration::from_secs(30);

/// Wait until a phase is reached by every live instance, a job has ended, or the gate to the next phase is open.
///
/// Changes nothing. Exits with 5 when that has not happened in time, and with 1 when a job has ended in another way than
/// by being done.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("what").required(true),
    after_help = "Examples:\n  crossfade wait subscriptions --phase read_new --timeout 10m\n  crossfade wait subscriptions --job\n  crossfade wait subscriptions --gate-open --timeout 1h && crossfade advance subscriptions --yes"
)]
pub(crate) struct Wait {
    /// The migration.
    name: String,
    /// Until this phase or a later one is entered, and every live instance has adopted it.
    #[arg(long, value_name = "PHASE", group = "what", value_parser = phase)]
    phase: Option<Phase>,
    /// Until this job has ended; without a number, until no job is unfinished.
    #[arg(long, value_name = "NUMBER", group = "what", num_args = 0..=1)]
    job: Option<Option<i64>>,
    /// Until the gate to the next phase is open.
    #[arg(long, group = "what")]
    gate_open: bool,
    /// Give up after this long, as in 30s, 10m or 2h; by default it waits for ever.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

/// What is the case, as far as it was waited for.
#[derive(Debug, Serialize)]
struct Seen {
    migration: String,
    /// Whether there is nothing to wait for any more.
    #[serde(rename = "reached")]
    is_reached: bool,
    phase: Phase,
    epoch: Epoch,
    /// Live instances that have not adopted the epoch.
    behind: Vec<String>,
    job: Option<Job>,
    gate: Option<serde_json::Value>,
    waited_seconds: f64,
    /// The same for people.
    #[serde(skip)]
    text: String,
}

impl Wait {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let operator = connection.operator().await?;
        let begun = Instant::now();
        let mut proven = None;
        let mut told = String::new();
        loop {
            let mut seen = self.look(&operator, &mut proven).await?;
            seen.waited_seconds = begun.elapsed().as_secs_f64();
            if seen.is_reached {
                let has_failed = seen.job.as_ref().is_some_and(|job| job.state != JobState::Done);
                output.result(&seen, |seen| seen.text.clone());
                return Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS });
            }
            if let Some(timeout) = self.timeout.filter(|timeout| begun.elapsed() >= *timeout) {
                return Err(Failure::TimedOut { waited: timeout, seen: seen.text, migration: self.name });
            }
            // Times and counts in a gate change all the while; what is missing is the news.
            let news = seen.news();
            if news != told {
                output.note(&format!("waiting: {news}"));
                told = news;
            }
            let left = self.timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
            tokio::time::sleep(left.unwrap_or(POLL).min(POLL)).await;
        }
    }

    async fn look(&self, operator: &Operator, proven: &mut Option<Instant>) -> Result<Seen, Failure> {
        let control = &operator.database().control;
        let registered = control.migration(&self.name).await?;
        let standing = registered.standing;
        let behind = fleet::behind(&control.instances(registered.id).await?, standing.epoch);
        let mut seen = Seen {
            migration: self.name.clone(),
            is_reached: false,
            phase: standing.phase,
            epoch: standing.epoch,
            behind,
            job: None,
            gate: None,
            waited_seconds: 0.0,
            text: format!("{}: {standing}", self.name),
        };
        if let Some(phase) = self.phase {
            seen.is_reached = standing.phase >= phase && seen.behind.is_empty();
            if !seen.behind.is_empty() {
                let count = counted(seen.behind.len() as u64, "instance");
                seen.text.push_str(&format!("; not adopted by {count}: {}", seen.behind.join(", ")));
            }
        } else if let Some(number) = self.job {
            let all = queue::queue(&operator.database().pool).jobs(registered.id).await?;
            let chosen = match number {
                Some(number) => {
                    Some(all.into_iter().find(|job| job.id == JobId(number)).ok_or_else(|| {
                        Failure::Usage {
                            what: format!("migration {} has no job {number}", self.name),
                            hint: format!("crossfade jobs {} lists them", self.name),
                        }
                    })?)
                }
                None => all.into_iter().find(|job| !job.state.is_finished()),
            };
            seen.is_reached = chosen.as_ref().is_none_or(|job| job.state.is_finished());
            seen.text =
                chosen.as_ref().map_or_else(|| format!("{}: no unfinished job", self.name), jobs::line);
            seen.job = chosen;
        } else {
            let report = self.gate(operator, proven).await?;
            seen.is_reached = report.open;
            seen.text = plan::text(&self.name, &report);
            seen.gate = Some(plan::document(&report));
        }
        Ok(seen)
    }

    /// The gate ahead, with what can be proven at once proven afresh where nothing else is missing.
    async fn gate(&self, operator: &Operator, proven: &mut Option<Instant>) -> Result<GateReport, Failure> {
        let nothing_ahead = || crossfade::Error::Impossible {
            migration: self.name.clone(),
            source: crossfade::core::transition::Impossible::NothingAhead,
        };
        let report = operator.overview(&self.name).await?.gate.ok_or_else(nothing_ahead)?;
        let is_provable = report.missing().all(|condition| condition.is_provable);
        if report.open || !is_provable || proven.is_some_and(|at| at.elapsed() < PROVE_EVERY) {
            return Ok(report);
        }
        *proven = Some(Instant::now());
        Ok(operator.prove(&self.name).await?.gate.ok_or_else(nothing_ahead)?)
    }
}

impl Seen {
    /// What is worth a line of a log when it changes.
    fn news(&self) -> String {
        let missing = self.gate.as_ref().and_then(|gate| gate["missing"].as_array()).map(|missing| {
            let names: Vec<_> = missing.iter().filter_map(|condition| condition["name"].as_str()).collect();
            format!("{}: the gate is shut by {}", self.migration, names.join(", "))
        });
        let job = self.job.as_ref().map(|job| format!("job {} is {}", job.id, job.state));
        missing.or(job).unwrap_or_else(|| self.text.clone())
    }
}

fn phase(text: &str) -> Result<Phase, String> {
    let known = || Phase::ALL.map(Phase::as_str).join(", ");
    text.parse().map_err(|_| format!("{text:?} is no phase; the phases are {}", known()))
}

/// A duration as the manifest has them: a number and a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write 30s, 10m or 2h");
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..unit].parse().map_err(|_| wrong())?;
    let seconds = match &text[unit..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// What to say when the time is up.
pub(crate) fn timed_out(waited: Duration, seen: &str) -> String {
    format!("waited {} in vain: {}", spell(waited), seen.trim_end())
}
