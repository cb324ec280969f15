//! The verdict: passed, or everything that is missing, in numbers.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    bound::mismatch_rate_upper_bound,
    latency::{quantile_lower_bound, quantile_upper_bound},
};
use crate::Tally;

/// What an experiment must have shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Criteria {
    /// Comparisons at least, in all and in each cohort. Default 10,000.
    pub comparisons_min: u64,
    /// The rate of mismatches that the upper bound must not exceed. Default 1e-3.
    pub mismatch_rate_max: f64,
    /// The share of eligible calls that may have been dropped. Default 0. What was dropped counts as
    /// mismatched in the bound, whatever this is.
    pub dropped_rate_max: f64,
    /// The chance that a candidate above the limit passes at any look. Default 0.05.
    pub alpha: f64,
    /// How much slower the candidate's percentile may be than control's: 0.1 is a tenth. `None`: latency is
    /// not judged. Default `None`.
    pub latency_margin: Option<f64>,
    /// The percentile that is judged. Default 0.99.
    pub latency_quantile: f64,
}

impl Default for Criteria {
    fn default() -> Self {
        Self {
            comparisons_min: 10_000,
            mismatch_rate_max: 1e-3,
            dropped_rate_max: 0.0,
            alpha: 0.05,
            latency_margin: None,
            latency_quantile: 0.99,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// The upper bound on the rate of mismatches, dropped calls counted as mismatched.
    pub mismatch_rate_bound: f64,
    /// What is missing; empty means passed.
    pub shortfalls: Vec<Shortfall>,
}

impl Judgement {
    /// Whether nothing is missing.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.shortfalls.is_empty()
    }
}

/// One thing that is missing, in numbers. `cohort` is `None` where it is about all calls.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Shortfall {
    /// Not enough comparisons.
    Comparisons {
        /// Whose.
        cohort: Option<String>,
        /// How many there are.
        compared: u64,
        /// How many there must be.
        required: u64,
    },
    /// The bound on the rate of mismatches is above the limit.
    MismatchRate {
        /// Whose.
        cohort: Option<String>,
        /// Mismatches seen.
        mismatched: u64,
        /// Calls dropped, which may have been mismatches.
        dropped: u64,
        /// Comparisons.
        compared: u64,
        /// The upper bound.
        bound: f64,
        /// The limit.
        limit: f64,
    },
    /// Too many calls were dropped: shed, timed out, panicked, errored, or incomparable.
    Dropped {
        /// How many.
        dropped: u64,
        /// Of how many eligible ones.
        eligible: u64,
        /// The limit, as a share.
        limit: f64,
    },
    /// The tallies are of several experiments, candidates or epochs: one that agrees must not make up for
    /// another that does not.
    Mixed,
    /// The account does not add up: counts were lost or invented on their way.
    NotClosed {
        /// Whose.
        cohort: Option<String>,
    },
    /// The candidate's percentile is not surely within the margin of control's.
    Latency {
        /// The percentile.
        quantile: f64,
        /// Control's, at least.
        control: Duration,
        /// The candidate's, at most; `None` where too few calls were seen.
        candidate: Option<Duration>,
        /// The margin, as a share.
        margin: f64,
    },
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Comparisons { cohort, compared, required } => {
                write!(f, "{compared} of {required} comparisons")?;
                cohort.as_ref().map_or(Ok(()), |cohort| write!(f, " in cohort {cohort}"))
            }
            Self::MismatchRate { cohort, mismatched, dropped, compared, bound, limit } => {
                write!(f, "mismatches {mismatched} and dropped {dropped} of {compared} compared")?;
                cohort.as_ref().map_or(Ok(()), |cohort| write!(f, " in cohort {cohort}"))?;
                write!(f, ": bound {bound:.1e}, limit {limit:.1e}")
            }
            Self::Dropped { dropped, eligible, limit } => {
                write!(f, "{dropped} of {eligible} calls dropped, limit {:.3} %", limit * 100.0)
            }
            Self::Mixed => f.write_str("tallies of several experiments, candidates or epochs"),
            Self::NotClosed { cohort } => {
                write!(f, "the account of {} does not add up", cohort.as_deref().unwrap_or("all calls"))
            }
            Self::Latency { quantile, control, candidate, margin } => {
                let percentile = quantile * 100.0;
                let allowed = margin * 100.0;
                match candidate {
                    Some(candidate) => write!(
                        f,
                        "candidate's p{percentile} may be {candidate:.1?}, control's {control:.1?}: margin {allowed:.0} %"
                    ),
                    None => write!(f, "too few calls to know the candidate's p{percentile}"),
                }
            }
        }
    }
}

/// Judges the tallies of one experiment, candidate and epoch: those of all processes, each cohort by itself and
/// all together. All must hold at once, so the more cohorts there are, the smaller the chance of a false pass.
#[must_use]
pub fn judge(criteria: &Criteria, tallies: &[Tally]) -> Judgement {
    let mut cohorts: std::collections::BTreeMap<Option<&str>, Tally> = std::collections::BTreeMap::new();
    for tally in tallies {
        match cohorts.get_mut(&tally.cohort.as_deref()) {
            Some(sum) => sum.merge(tally),
            None => {
                cohorts.insert(tally.cohort.as_deref(), tally.clone());
            }
        }
    }
    let mut all = crate::Totals::default();
    let (mut control, mut candidate) = (crate::LatencySketch::default(), crate::LatencySketch::default());
    let mut shortfalls = Vec::new();
    let of = |tally: &'_ Tally| (tally.experiment.clone(), tally.candidate.clone(), tally.epoch);
    if tallies.windows(2).any(|pair| of(&pair[0]) != of(&pair[1])) {
        shortfalls.push(Shortfall::Mixed);
    }
    for (cohort, tally) in &cohorts {
        all += tally.totals;
        control.merge(&tally.control_latency);
        candidate.merge(&tally.candidate_latency);
        let cohort = || cohort.map(str::to_owned);
        if !tally.totals.is_closed() {
            shortfalls.push(Shortfall::NotClosed { cohort: cohort() });
        }
        let compared = tally.totals.compared();
        if tally.cohort.is_some() && compared < criteria.comparisons_min {
            let required = criteria.comparisons_min;
            shortfalls.push(Shortfall::Comparisons { cohort: cohort(), compared, required });
        }
        if tally.cohort.is_some() {
            shortfalls.extend(mismatch_rate(criteria, &tally.totals, cohort()).1);
        }
    }

    let (compared, dropped) = (all.compared(), all.dropped());
    if compared < criteria.comparisons_min {
        let required = criteria.comparisons_min;
        shortfalls.push(Shortfall::Comparisons { cohort: None, compared, required });
    }
    if !is_within(dropped as f64, criteria.dropped_rate_max * all.eligible as f64) {
        let limit = criteria.dropped_rate_max;
        shortfalls.push(Shortfall::Dropped { dropped, eligible: all.eligible, limit });
    }
    let (bound, above) = mismatch_rate(criteria, &all, None);
    shortfalls.extend(above);
    if let Some(margin) = criteria.latency_margin {
        // Two bounds must hold at once: each gets half of the chance to fail.
        let (quantile, alpha) = (criteria.latency_quantile, criteria.alpha / 2.0);
        let at_least = quantile_lower_bound(&control, quantile, alpha);
        let at_most = quantile_upper_bound(&candidate, quantile, alpha);
        let limit = at_least.as_secs_f64() * (1.0 + margin);
        if !at_most.is_some_and(|at_most| is_within(at_most.as_secs_f64(), limit)) {
            shortfalls.push(Shortfall::Latency { quantile, control: at_least, candidate: at_most, margin });
        }
    }
    Judgement { mismatch_rate_bound: bound, shortfalls }
}

/// The bound on the rate of mismatches, and the shortfall if it is above the limit. Nobody knows what a dropped
/// call would have shown: the bound takes the worst.
fn mismatch_rate(
    criteria: &Criteria,
    totals: &crate::Totals,
    cohort: Option<String>,
) -> (f64, Option<Shortfall>) {
    let (compared, dropped, mismatched) = (totals.compared(), totals.dropped(), totals.mismatched);
    let bound = mismatch_rate_upper_bound(mismatched + dropped, compared + dropped, criteria.alpha);
    let limit = criteria.mismatch_rate_max;
    let above = !is_within(bound, limit);
    (bound, above.then_some(Shortfall::MismatchRate { cohort, mismatched, dropped, compared, bound, limit }))
}

/// A limit that is no number holds nothing.
fn is_within(value: f64, limit: f64) -> bool {
    value <= limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LatencySketch, Totals};

    fn tally(matched: u64, mismatched: u64, shed: u64) -> Tally {
        let totals =
            Totals { eligible: matched + mismatched + shed, matched, mismatched, shed, ..Totals::default() };
        Tally {
            experiment: "e".into(),
            candidate: "c".into(),
            cohort: None,
            epoch: 1,
            totals,
            control_latency: LatencySketch::default(),
            candidate_latency: LatencySketch::default(),
        }
    }

    #[test]
    fn enough_agreement_passes() {
        assert!(judge(&Criteria::default(), &[tally(6_000, 0, 0), tally(6_000, 0, 0)]).passed());
    }

    #[test]
    fn nothing_compared_fails() {
        assert!(!judge(&Criteria { comparisons_min: 0, ..Criteria::default() }, &[]).passed());
    }

    #[test]
    fn dropped_calls_fail_it_and_count_as_mismatches() {
        let strict = judge(&Criteria::default(), &[tally(20_000, 0, 1)]);
        assert!(matches!(strict.shortfalls[..], [Shortfall::Dropped { dropped: 1, .. }]));
        let lenient = Criteria { dropped_rate_max: 0.5, ..Criteria::default() };
        let judged = judge(&lenient, &[tally(20_000, 0, 1_000)]);
        assert!(matches!(judged.shortfalls[..], [Shortfall::MismatchRate { dropped: 1_000, .. }]));
    }

    #[test]
    fn an_account_that_does_not_add_up_fails() {
        let mut broken = tally(20_000, 0, 0);
        broken.totals.eligible += 1;
        assert_eq!(
            judge(&Criteria::default(), &[broken]).shortfalls,
            [Shortfall::NotClosed { cohort: None }]
        );
    }

    #[test]
    fn each_cohort_needs_its_own_comparisons() {
        let small = Tally { cohort: Some("enterprise".into()), ..tally(50, 0, 0) };
        let judged = judge(&Criteria::default(), &[tally(20_000, 0, 0), small]);
        assert_eq!(judged.shortfalls[0].to_string(), "50 of 10000 comparisons in cohort enterprise");
    }

    #[test]
    fn many_that_agree_do_not_hide_a_cohort_that_does_not() {
        let enterprise = Tally { cohort: Some("enterprise".into()), ..tally(19_900, 100, 0) };
        let judged = judge(&Criteria::default(), &[tally(1_000_000, 0, 0), enterprise]);
        assert!(judged.mismatch_rate_bound < 1e-3, "all together are below the limit");
        let [Shortfall::MismatchRate { cohort: Some(cohort), mismatched: 100, .. }] = &judged.shortfalls[..]
        else {
            panic!("{judged:?}");
        };
        assert_eq!(cohort, "enterprise");
    }

    #[test]
    fn a_slower_candidate_fails_where_latency_is_judged() {
        let criteria = Criteria { latency_margin: Some(0.1), ..Criteria::default() };
        let mut slow = tally(20_000, 0, 0);
        for n in 0..20_000u64 {
            slow.control_latency.record(Duration::from_micros(1_000 + n % 100));
            slow.candidate_latency.record(Duration::from_micros(1_000 + n % 100));
        }
        assert!(judge(&criteria, std::slice::from_ref(&slow)).passed());
        (0..2_000).for_each(|_| slow.candidate_latency.record(Duration::from_millis(5)));
        assert!(matches!(judge(&criteria, &[slow]).shortfalls[..], [Shortfall::Latency { .. }]));
    }

    #[test]
    fn what_does_not_belong_together_is_not_judged_together() {
        let newer = Tally { epoch: 2, ..tally(20_000, 0, 0) };
        assert_eq!(judge(&Criteria::default(), &[tally(20_000, 0, 0), newer]).shortfalls, [Shortfall::Mixed]);
    }

    #[test]
    fn limits_that_are_no_numbers_refuse() {
        let broken =
            Criteria { mismatch_rate_max: f64::NAN, dropped_rate_max: f64::NAN, ..Criteria::default() };
        assert_eq!(judge(&broken, &[tally(20_000, 0, 0)]).shortfalls.len(), 2);
    }
}
