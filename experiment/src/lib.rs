//! Run the new code beside the old one, on real traffic, and know whether it agrees, without a caller ever
//! waiting for it.
//!
//! ```
//! use crossfade_experiment::{Experiment, Sampling};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let plans: Experiment<Vec<String>, std::io::Error> =
//!     Experiment::builder("plans").sampling(Sampling::ByKey(50_000)).build()?;
//!
//! let read_old = || async { Ok(vec!["gold".to_owned()]) };
//! let read_new = || async { Ok(vec!["gold".to_owned()]) };
//! // The caller waits for `read_old` alone. For 5 % of the keys `read_new` runs behind, and is compared.
//! let value = plans.run("customer-17", read_old, read_new).await?;
//! assert_eq!(value, ["gold"]);
//! # Ok(())
//! # }
//! ```
//!
//! The nouns: an [`Experiment`] has a *control*, which answers the caller, and a *candidate*, which is tried.
//! [`Sampling`] says which calls take part, [`Limits`] and [`BreakerPolicy`] what the candidate may cost. Each
//! comparison is an [`Observation`], handed to [`Publisher`]s. [`Tally`] counts them, closed and
//! mergeable; [`judge`] says whether they are enough. The [`cookbook`] has recipes, among them what must not be
//! shadowed.
//!
//! Which method for which call:
//!
//! | | caller waits for control alone | in line |
//! | --- | --- | --- |
//! | async | [`run`](Experiment::run), [`run_rechecked`](Experiment::run_rechecked) | [`run_in_line`](Experiment::run_in_line) |
//! | sync | [`run_sync`](Experiment::run_sync) | [`run_sync_in_line`](Experiment::run_sync_in_line) |
//! | any number of candidates, async | [`trial`](Experiment::trial) | [`trial_in_line`](Experiment::trial_in_line) |
//! | any number of candidates, sync | [`trial_sync`](Experiment::trial_sync) | [`trial_sync_in_line`](Experiment::trial_sync_in_line) |
//!
//! A trial without a control is a [`Choice`]: one of its branches, named at run time, answers.
//!
//! What is promised: nothing but control's own value, error or panic reaches the caller. A call that is not sampled
//! costs one relaxed load (and a hash of its key, where sampling goes by key), allocates nothing, and builds
//! neither side twice. Every eligible call is counted in exactly one bucket of [`Totals`].
//!
//! Features: `derive` (default) for `#[derive(Diff)]`.

mod admit;
mod apart;
mod behind;
mod breaker;
mod builder;
mod choice;
mod clock;
mod contain;
mod desk;
mod diff;
mod error;
mod execute;
mod experiment;
mod follow;
mod hooks;
mod in_line;
mod journal;
#[doc = include_str!("../docs/cookbook.md")]
pub mod cookbook {}
pub mod judge;
mod leave;
mod ledger;
mod lens;
mod lifecycle;
mod limits;
mod meter;
mod noise;
mod observation;
mod publish;
mod recheck;
mod reread;
mod roster;
mod runtime;
mod sample;
mod seat;
mod settle;
mod sketch;
mod totals;
mod trial;
mod turns;
mod weigh;

pub use breaker::BreakerPolicy;
pub use builder::Builder;
pub use choice::Choice;
#[cfg(feature = "derive")]
pub use crossfade_experiment_derive::Diff;
pub use diff::{
    Approximate, Diff, DiffKind, Differences, FieldDiff, FieldValue, Reveal, diff_json, diff_serialized,
};
pub use error::Error;
pub use experiment::{Experiment, Order, Start};
pub use hooks::{Comparison, Seen};
pub use ledger::COHORT_OTHER;
pub use lens::{Capture, Part, View, Whole};
pub use limits::Limits;
pub use noise::Noise;
pub use observation::{
    Branch, ErrorSummary, Hook, HookFailure, Incomparable, Mismatch, Observation, Outcome, Verdict,
};
pub use publish::{
    Examples, Group, JsonLines, PublishFn, Publisher, ToChannel, ToMetrics, ToTracing, Unmatched,
};
pub use recheck::RecheckPolicy;
pub use runtime::{CandidateHandle, CandidateRuntime, Place};
pub use sample::{Bucket, PPM_ALL, Sampling, Seed};
pub use sketch::LatencySketch;
pub use totals::{Tally, Totals};
pub use trial::{Behind, BehindSync, InLine, InLineSync, Trial};
