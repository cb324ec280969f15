//! The closed account of an experiment: every eligible call ends in exactly one bucket.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::LatencySketch;

/// What became of the eligible calls: the sampled ones that have ended.
///
/// `eligible = skipped + shed + timed_out + panicked + errored + incomparable + matched + mismatched`, in
/// each of these values and so in any sum of them. `transient` and `ignored` are parts of `matched`: they
/// explain it, and take nothing away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Calls that were sampled, each of them in one of the buckets below.
    pub eligible: u64,
    /// `run_if` said no.
    pub skipped: u64,
    /// Not run to protect the caller: too many in flight, over budget, breaker open, shutting down.
    pub shed: u64,
    /// The candidate did not end in time.
    pub timed_out: u64,
    /// The candidate panicked.
    pub panicked: u64,
    /// The candidate failed where control did not.
    pub errored: u64,
    /// There was nothing to compare: control panicked or was cancelled, a hook failed, or the values kept
    /// moving.
    pub incomparable: u64,
    /// Control and candidate agreed: at once, on a second read, or by a rule that ignores the difference.
    pub matched: u64,
    /// Control and candidate differ.
    pub mismatched: u64,
    /// The part of `matched` that differed at first, and agreed when it was read again.
    pub transient: u64,
    /// The part of `matched` whose difference a rule ignored.
    pub ignored: u64,
}

impl Totals {
    /// Calls whose values were compared.
    #[must_use]
    pub fn compared(&self) -> u64 {
        self.matched + self.mismatched
    }

    /// Calls that should have been compared and were not: nobody knows what they would have shown.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shed + self.timed_out + self.panicked + self.errored + self.incomparable
    }

    /// Whether the buckets add up to the eligible calls, and the parts are within their wholes.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.eligible == self.skipped + self.dropped() + self.compared()
            && self.transient + self.ignored <= self.matched
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.eligible += other.eligible;
        self.skipped += other.skipped;
        self.shed += other.shed;
        self.timed_out += other.timed_out;
        self.panicked += other.panicked;
        self.errored += other.errored;
        self.incomparable += other.incomparable;
        self.matched += other.matched;
        self.mismatched += other.mismatched;
        self.transient += other.transient;
        self.ignored += other.ignored;
    }
}

/// Counts and latencies of one experiment, candidate and cohort at one epoch. Tallies with the same four
/// names add up, over time and over processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// The experiment's name.
    pub experiment: String,
    /// The candidate's name.
    pub candidate: String,
    /// The cohort that the calls belong to; `None` where the experiment has no cohorts.
    pub cohort: Option<String>,
    /// The epoch at which the calls began, whenever they ended.
    pub epoch: u64,
    /// What became of them.
    pub totals: Totals,
    /// Control's latencies, of the calls whose candidate ended or timed out.
    pub control_latency: LatencySketch,
    /// The candidate's latencies, of the same calls; one that timed out counts with its timeout.
    pub candidate_latency: LatencySketch,
}

impl Tally {
    /// Adds another tally's counts and latencies; the names stay.
    pub fn merge(&mut self, other: &Self) {
        self.totals += other.totals;
        self.control_latency.merge(&other.control_latency);
        self.candidate_latency.merge(&other.candidate_latency);
    }
}
