//! Into the `metrics` facade.

use metrics::{SharedString, counter, histogram};

use super::Publisher;
use crate::{Observation, Verdict};

/// Counts observations in `experiment_observations_total`, by experiment, candidate and verdict, and records
/// `experiment_duration_seconds`, by experiment and side. Keys and cohorts are no labels: their number is not
/// bounded by anything that a metrics store would like.
#[derive(Debug, Clone, Copy, Default)]
pub struct ToMetrics;

impl Publisher for ToMetrics {
    fn publish(&self, observation: &Observation) {
        let experiment: SharedString = observation.experiment.clone().into();
        let candidate: SharedString = observation.candidate_name.clone().into();
        let verdict = label(&observation.verdict);
        counter!(
            "experiment_observations_total",
            "experiment" => experiment.clone(), "candidate" => candidate.clone(), "verdict" => verdict
        )
        .increment(1);
        histogram!("experiment_duration_seconds", "experiment" => experiment.clone(), "side" => "control")
            .record(observation.control.wall);
        histogram!("experiment_duration_seconds", "experiment" => experiment, "side" => candidate)
            .record(observation.candidate.wall);
    }
}

fn label(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Matched => "matched",
        Verdict::Ignored => "ignored",
        Verdict::Transient => "transient",
        Verdict::Mismatched(_) => "mismatched",
        Verdict::Incomparable(_) => "incomparable",
        Verdict::Errored => "errored",
        Verdict::Panicked => "panicked",
        Verdict::TimedOut => "timed_out",
    }
}
