//! From two ended sides to a verdict, and from a verdict to an observation.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::{
    Branch, ErrorSummary, FieldDiff, Hook, HookFailure, Incomparable, Mismatch, Observation, Outcome, Seen,
    Verdict, View,
    admit::Subject,
    experiment::Inner,
    hooks::{Assessment, Picture, guard},
    ledger::{Bin, Entry},
    roster::Candidate,
};

impl<V, E, L: View<V>> Inner<V, E, L> {
    pub(crate) fn summarize(&self, error: &E, failures: &mut Vec<HookFailure>) -> ErrorSummary {
        guard(Hook::DescribeErrors, failures, || (self.describe_error)(error))
            .unwrap_or_else(|| ErrorSummary::new("unknown", "describing the error panicked"))
    }

    /// Shows a side that has ended, as comparisons see it; `None` where projecting it panicked.
    pub(crate) fn look<R>(
        &self,
        side: Seen<'_, V>,
        failures: &mut Vec<HookFailure>,
        look: impl FnOnce(Seen<'_, L::Observed>, &mut Vec<HookFailure>) -> R,
    ) -> Option<R> {
        match side {
            Err(error) => Some(look(Err(error), failures)),
            Ok(value) => {
                let mut inside = Vec::new();
                let shown = guard(Hook::Capture, failures, || {
                    self.lens.show(value, |observed| look(Ok(observed), &mut inside))
                });
                failures.append(&mut inside);
                shown
            }
        }
    }

    /// The verdict on two sides that have ended, and what a report may show of them.
    pub(crate) fn weigh(
        &self,
        old: Seen<'_, L::Observed>,
        new: Seen<'_, L::Observed>,
        failures: &mut Vec<HookFailure>,
    ) -> (Verdict, Picture) {
        self.weigh_as(self.hooks.assess(old, new, failures), old, new, failures)
    }

    /// As [`weigh`](Self::weigh), where the hooks were asked already.
    pub(crate) fn weigh_as(
        &self,
        assessment: Assessment,
        old: Seen<'_, L::Observed>,
        new: Seen<'_, L::Observed>,
        failures: &mut Vec<HookFailure>,
    ) -> (Verdict, Picture) {
        let verdict = match assessment {
            Assessment::Agree => Verdict::Matched,
            Assessment::Ignored => Verdict::Ignored,
            Assessment::Differ => Verdict::Mismatched(Mismatch::Unchecked),
            Assessment::Errored => Verdict::Errored,
            Assessment::Declared => Verdict::Incomparable(Incomparable::Declared),
            Assessment::HookFailed => Verdict::Incomparable(Incomparable::Hook),
        };
        let shows = self.hooks.draws() && (self.raises || self.is_wanted(&verdict));
        let picture = match shows {
            true => self.hooks.picture(old, new, verdict.is_mismatch(), failures),
            false => Picture::default(),
        };
        (verdict, picture)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one value, named once more by its fields")]
    pub(crate) fn observation(
        &self,
        candidate: &Candidate,
        entry: &Entry,
        subject: &Subject,
        mut sides: (Branch, Branch),
        verdict: Verdict,
        differences: Vec<FieldDiff>,
        mut hook_failures: Vec<HookFailure>,
    ) -> Observation {
        let key = match (self.show_key, &subject.key) {
            (Some(show), Some(key)) => guard(Hook::ShowKeys, &mut hook_failures, || show(key).into()),
            _ => None,
        };
        if !self.shows_errors {
            sides.0.redact();
            sides.1.redact();
        }
        Observation {
            experiment: self.name.clone(),
            candidate_name: candidate.name.clone(),
            epoch: entry.epoch(),
            at: SystemTime::now(),
            bucket: subject.bucket,
            key,
            cohort: entry.cohort(),
            control: sides.0,
            candidate: sides.1,
            verdict,
            differences,
            hook_failures,
            context: self.context.clone(),
        }
    }
}

impl Branch {
    /// A side's report; it takes the value out of the picture.
    pub(crate) fn new(
        outcome: Outcome,
        wall_ns: u64,
        cpu: Option<Duration>,
        value: &mut Option<Value>,
    ) -> Self {
        Self { outcome, wall: Duration::from_nanos(wall_ns), cpu, value: value.take() }
    }

    /// Hides an error's text, which may hold values, and leaves its kind.
    fn redact(&mut self) {
        if let Outcome::Error(error) = &mut self.outcome {
            error.message = "(redacted)".to_owned();
        }
    }
}

impl Verdict {
    pub(crate) fn bin(&self) -> Bin {
        match self {
            Self::Matched => Bin::Matched,
            Self::Ignored => Bin::Ignored,
            Self::Transient => Bin::Transient,
            Self::Mismatched(_) => Bin::Mismatched,
            Self::Incomparable(_) => Bin::Incomparable,
            Self::Errored => Bin::Errored,
            Self::Panicked => Bin::Panicked,
            Self::TimedOut => Bin::TimedOut,
        }
    }
}

/// What a raised mismatch says: in tests a panic is the report.
pub(crate) fn raised(observation: &Observation) -> String {
    let mut text = format!("experiment `{}`: {:?}", observation.experiment, observation.verdict);
    text.push_str(&format!("\n  control:   {}", side(&observation.control)));
    text.push_str(&format!("\n  candidate: {}", side(&observation.candidate)));
    for diff in &observation.differences {
        text.push_str(&format!("\n  {}: {:?} {:?} -> {:?}", diff.path, diff.kind, diff.old, diff.new));
    }
    text
}

fn side(branch: &Branch) -> String {
    match &branch.value {
        Some(value) => format!("{:?} {value}", branch.outcome),
        None => format!("{:?}", branch.outcome),
    }
}
