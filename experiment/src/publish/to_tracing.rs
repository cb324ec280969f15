//! Into `tracing`.

use super::Publisher;
use crate::{Observation, Verdict};

/// Emits an event for each observation: a mismatch or a candidate's failure as a warning, the rest at debug
/// level. Matches are not even built unless that level is on.
#[derive(Debug, Clone, Copy, Default)]
pub struct ToTracing;

const TARGET: &str = "crossfade_experiment";

impl Publisher for ToTracing {
    fn publish(&self, observation: &Observation) {
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    target: TARGET,
                    experiment = &*observation.experiment,
                    candidate = &*observation.candidate_name,
                    epoch = observation.epoch,
                    bucket = observation.bucket,
                    key = observation.key.as_deref(),
                    cohort = observation.cohort.as_deref(),
                    verdict = ?observation.verdict,
                    control = ?observation.control.outcome,
                    candidate_outcome = ?observation.candidate.outcome,
                    control_us = observation.control.wall.as_micros() as u64,
                    candidate_us = observation.candidate.wall.as_micros() as u64,
                    differences = ?observation.differences,
                    hook_failures = ?observation.hook_failures,
                    "observation"
                )
            };
        }
        if is_warning(&observation.verdict) { event!(warn) } else { event!(debug) }
    }

    fn wants(&self, verdict: &Verdict) -> bool {
        is_warning(verdict) || tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
    }
}

fn is_warning(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Mismatched(_)
        | Verdict::Errored
        | Verdict::Panicked
        | Verdict::TimedOut
        | Verdict::Incomparable(_) => true,
        Verdict::Matched | Verdict::Ignored | Verdict::Transient => false,
    }
}
