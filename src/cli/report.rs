//! `crossfade experiments` and `crossfade report`: what shadow reads have seen.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use crossfade::core::comparisons::Mismatch;
use crossfade::core::gate::grouped;
use crossfade::experiment::Tally;
use serde::Serialize;

use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;

/// Show what each experiment has counted at the present epoch, over all instances.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade experiments subscriptions")]
pub(crate) struct Experiments {
    /// The migration.
    name: String,
}

/// One experiment's counts over all instances.
#[derive(Debug, Serialize)]
struct Row {
    experiment: String,
    totals: crossfade::experiment::Totals,
    control_p99_ms: Option<f64>,
    candidate_p99_ms: Option<f64>,
}

impl Experiments {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let operator = connection.operator().await?;
        let control = &operator.database().control;
        let registered = control.migration(&self.name).await?;
        let mut merged = BTreeMap::<String, Tally>::new();
        for stored in control.tallies(registered.id, registered.standing.epoch).await? {
            let tally: Tally = serde_json::from_value(stored.totals).map_err(|_| {
                crossfade::Error::Unreadable { what: format!("a tally of experiment {}", stored.experiment) }
            })?;
            match merged.get_mut(&stored.experiment) {
                Some(sum) => sum.merge(&tally),
                None => {
                    merged.insert(stored.experiment, tally);
                }
            }
        }
        let milliseconds = |sketch: &crossfade::experiment::LatencySketch| {
            sketch.quantile(0.99).map(|time| time.as_secs_f64() * 1e3)
        };
        let rows: Vec<_> = merged
            .into_iter()
            .map(|(experiment, tally)| Row {
                experiment,
                totals: tally.totals,
                control_p99_ms: milliseconds(&tally.control_latency),
                candidate_p99_ms: milliseconds(&tally.candidate_latency),
            })
            .collect();
        output.result(&rows, |rows| match rows.as_slice() {
            [] => format!("{}: no comparisons at epoch {}", self.name, registered.standing.epoch),
            rows => rows.iter().map(line).collect(),
        });
        Ok(ExitCode::SUCCESS)
    }
}

fn line(row: &Row) -> String {
    let p99 = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} ms"));
    format!(
        "{}: compared {}, matched {}, mismatched {}, dropped {}; p99 {} old, {} new\n",
        row.experiment,
        grouped(row.totals.compared()),
        grouped(row.totals.matched),
        grouped(row.totals.mismatched),
        grouped(row.totals.dropped()),
        p99(row.control_p99_ms),
        p99(row.candidate_p99_ms)
    )
}

/// Show the latest mismatches, with the fields that differ.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade report subscriptions --limit 5")]
pub(crate) struct Report {
    /// The migration.
    name: String,
    /// How many at most.
    #[arg(long, default_value_t = 20)]
    limit: u32,
}

impl Report {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let operator = connection.operator().await?;
        let control = &operator.database().control;
        let registered = control.migration(&self.name).await?;
        let mismatches = control.mismatches(registered.id, self.limit).await?;
        output.result(&mismatches, |mismatches| match mismatches.as_slice() {
            [] => format!("{}: no mismatches are recorded", self.name),
            mismatches => mismatches.iter().map(mismatch).collect(),
        });
        Ok(ExitCode::SUCCESS)
    }
}

fn mismatch(seen: &Mismatch) -> String {
    let mut text = format!("{}  epoch {}  {}  key {}\n", seen.at, seen.epoch, seen.experiment, seen.key);
    for difference in seen.differences.as_array().into_iter().flatten() {
        text.push_str(&format!("    {difference}\n"));
    }
    text
}
