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

/// A mismatch for people: one line for what differs in the same way in many elements of a sequence.
fn mismatch(seen: &Mismatch) -> String {
    let mut text = format!("{}  epoch {}  {}  key {}\n", seen.at, seen.epoch, seen.experiment, seen.key);
    let mut counts = BTreeMap::<String, u64>::new();
    for difference in seen.differences.as_array().into_iter().flatten() {
        *counts.entry(spell(difference)).or_default() += 1;
    }
    for (difference, count) in counts {
        let times = if count == 1 { String::new() } else { format!("  ({} times)", grouped(count)) };
        text.push_str(&format!("    {difference}{times}\n"));
    }
    text
}

/// Where and how a field differs, with the values where the experiment shows them.
fn spell(difference: &serde_json::Value) -> String {
    let word = |name: &str| difference[name].as_str().unwrap_or_default();
    let path = match word("path") {
        "" => "the whole answer".to_owned(),
        path => any_index(path),
    };
    let how = match word("kind") {
        "value" => "another value",
        "type" => "another type, or null",
        "missing" => "only in the old store",
        "added" => "only in the new store",
        "length" => "another length",
        other => other,
    };
    let side = |name: &str| match &difference[name] {
        serde_json::Value::Object(shown) => shown.get("shown").map(ToString::to_string),
        _ => None,
    };
    match (side("old"), side("new")) {
        (None, None) => format!("{path}: {how}"),
        (old, new) => {
            let value = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            format!("{path}: {how}: {} old, {} new", value(old), value(new))
        }
    }
}

/// A path with every index as `*`: `[3].lines[0].text` becomes `[*].lines[*].text`.
fn any_index(path: &str) -> String {
    let mut parts = path.split('[');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(']') {
            Some((index, rest)) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.push_str("[*]");
                text.push_str(rest);
            }
            _ => {
                text.push('[');
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_differs_in_many_elements_is_one_line() {
        let field = |index: u32, old: serde_json::Value, new: serde_json::Value| serde_json::json!({ "path": format!("[{index}].due"), "kind": "type", "old": old, "new": new });
        let shown = |value: &str| serde_json::json!({ "shown": value });
        let seen = Mismatch {
            at: "today".to_owned(),
            epoch: crossfade::Epoch(4),
            experiment: "loans.list".to_owned(),
            key: "7".to_owned(),
            differences: serde_json::json!([
                field(0, "redacted".into(), "redacted".into()),
                field(1, shown("monday"), serde_json::json!({ "shown": null })),
                field(12, "redacted".into(), "redacted".into()),
                { "path": "", "kind": "length", "old": "redacted", "new": "redacted" },
                { "path": "of[x].to[2]", "kind": "added", "old": "absent", "new": "redacted" },
            ]),
        };
        assert_eq!(
            mismatch(&seen),
            "today  epoch 4  loans.list  key 7\n    \
             [*].due: another type, or null  (2 times)\n    \
             [*].due: another type, or null: \"monday\" old, null new\n    \
             of[x].to[*]: only in the new store\n    \
             the whole answer: another length\n"
        );
    }
}
