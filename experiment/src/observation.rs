//! What one comparison has shown: an immutable value that publishers get.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::Value;

use crate::FieldDiff;

/// One comparison of control and candidate. Values stand in it only where the experiment was told to show
/// them; cloning it is cheap enough for a channel.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Observation {
    /// The experiment's name.
    pub experiment: Arc<str>,
    /// The candidate's name.
    pub candidate_name: Arc<str>,
    /// The epoch at which the call began.
    pub epoch: u64,
    /// When the comparison ended, by this process's wall clock.
    pub at: SystemTime,
    /// The key's bucket: enough to see whether mismatches gather on few keys, without telling which.
    pub bucket: u32,
    /// The key itself, as text, where the experiment shows keys.
    pub key: Option<Arc<str>>,
    /// The cohort that the call belongs to.
    pub cohort: Option<Arc<str>>,
    /// What control did.
    pub control: Branch,
    /// What the candidate did.
    pub candidate: Branch,
    /// How they compare.
    pub verdict: Verdict,
    /// The fields that differ: of a mismatch, where the experiment knows how to tell.
    pub differences: Vec<FieldDiff>,
    /// User-supplied hooks that panicked on the way. None of them reached the caller.
    pub hook_failures: Vec<HookFailure>,
    /// The experiment's context.
    pub context: Arc<Value>,
}

/// One side of a comparison.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Branch {
    /// How it ended.
    pub outcome: Outcome,
    /// From its start to its end.
    pub wall: Duration,
    /// The processor time of the thread while it was polled, where the experiment measures it.
    pub cpu: Option<Duration>,
    /// The cleaned value, where the experiment has a `clean`.
    pub value: Option<Value>,
}

/// How one side ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With a value.
    Value,
    /// With an error.
    Error(ErrorSummary),
    /// With a panic, and its message as it was written: the standard hook prints it anyway.
    Panicked(String),
    /// Not within its time.
    TimedOut,
    /// Its caller went away before it ended, or it panicked into its caller.
    Gone,
    /// It was not run, or not before this was published.
    NotRun,
}

/// What is kept of an error: errors are seldom `Clone`, and the caller has the original.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct ErrorSummary {
    /// Its kind: the type's name, or what `describe_errors` says.
    pub kind: String,
    /// Its message; redacted in what is published, unless the experiment shows values or describes errors.
    pub message: String,
}

impl ErrorSummary {
    /// A summary of its two parts.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into() }
    }
}

/// How control and candidate compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// They agree.
    Matched,
    /// They differ, and a rule says that this difference does not count.
    Ignored,
    /// They differed, and agreed when both were read again: a race with a writer.
    Transient,
    /// They differ.
    Mismatched(Mismatch),
    /// There was nothing to compare.
    Incomparable(Incomparable),
    /// The candidate failed where control did not.
    Errored,
    /// The candidate panicked.
    Panicked,
    /// The candidate did not end in time.
    TimedOut,
}

impl Verdict {
    /// Whether control and candidate differ.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        matches!(self, Self::Mismatched(_))
    }
}

/// How sure a mismatch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mismatch {
    /// Seen once: the experiment does not read again, or had no room to.
    Unchecked,
    /// Seen again after the delay, while control stood still.
    Persistent,
}

/// Why there was nothing to compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Incomparable {
    /// Control panicked, or its caller went away.
    Control,
    /// A user-supplied hook panicked; see [`Observation::hook_failures`].
    Hook,
    /// `compare` said so.
    Declared,
    /// Every second read found control changed again.
    Moving,
    /// A second read failed or did not end in time.
    Unreadable,
}

/// A user-supplied hook that panicked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HookFailure {
    /// The hook.
    pub hook: Hook,
    /// The panic's message.
    pub message: String,
}

/// The places where user code runs inside an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Hook {
    /// Whether a call takes part.
    RunIf,
    /// Before control and candidate.
    BeforeRun,
    /// After the observation.
    AfterRun,
    /// Copying or projecting control's value.
    Capture,
    /// Describing an error.
    DescribeErrors,
    /// Comparing values or errors.
    Compare,
    /// Ignoring a difference.
    Ignore,
    /// Telling the differing fields.
    Diff,
    /// Preparing a value for publication.
    Clean,
    /// Writing a key as text.
    ShowKeys,
    /// The version of a value.
    Version,
    /// The cohort of a call.
    Cohort,
    /// A publisher.
    Publish,
}
