//! Bounds on a rate that stay valid however often, and for whatever reason, they are looked at.

/// An upper confidence bound on the rate of mismatches, after `mismatched` of `compared` calls.
///
/// With probability at least `1 - alpha` the true rate is below the bound at *every* count at which it is
/// ever computed, at once: an operator may look after each call and stop at the first look that
/// pleases. A fixed-sample interval (Clopper–Pearson, Wilson) computed at each look promises no such thing.
///
/// Method: a beta-binomial mixture. Were `p` the rate, the likelihood ratio of a rate drawn from a prior
/// Beta(a, 1) against `p` would be a martingale in the number of calls, so by Ville's inequality it reaches
/// `1 / alpha` with probability at most `alpha`. The bound is the largest `p` at which it has not. Sources:
/// H. Robbins, "Statistical methods related to the law of the iterated logarithm" (1970); T. L. Lai,
/// "On confidence sequences" (1976); S. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform,
/// nonparametric, nonasymptotic confidence sequences" (2021).
///
/// It assumes that each comparison mismatches with the same probability whatever came before.
///
/// Conventions: 1 where nothing was compared; `alpha` is clamped to `1e-12..=0.5`; more mismatches than
/// comparisons count as all.
///
/// ```
/// use crossfade_experiment::judge::mismatch_rate_upper_bound;
///
/// // No mismatch in 10,000 comparisons: below 4.3e-4, with 95 % confidence at every look.
/// assert!(mismatch_rate_upper_bound(0, 10_000, 0.05) < 4.3e-4);
/// assert_eq!(mismatch_rate_upper_bound(0, 0, 0.05), 1.0);
/// ```
#[must_use]
pub fn mismatch_rate_upper_bound(mismatched: u64, compared: u64, alpha: f64) -> f64 {
    let observed = mismatched.min(compared);
    if compared == 0 || observed == compared {
        return 1.0;
    }
    let limit = -alpha.clamp(ALPHA_MIN, ALPHA_MAX).ln();
    let (hits, misses) = (observed as f64, (compared - observed) as f64);
    let mixture = ln_beta(hits + PRIOR, misses + 1.0) - ln_beta(PRIOR, 1.0);
    // The logarithm of the mixture's likelihood ratio against a rate.
    let rejected = |rate: f64| {
        let log_hits = if observed == 0 { 0.0 } else { hits * rate.ln() };
        mixture - log_hits - misses * (-rate).ln_1p() >= limit
    };
    // The evidence against a rate grows with its distance from the observed one.
    let (mut low, mut high) = (observed as f64 / compared as f64, 1.0);
    while high - low > PRECISION * high {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if rejected(middle) { high = middle } else { low = middle }
    }
    high
}

/// The lower bound to [`mismatch_rate_upper_bound`], by the same method.
#[must_use]
pub fn mismatch_rate_lower_bound(mismatched: u64, compared: u64, alpha: f64) -> f64 {
    1.0 - mismatch_rate_upper_bound(compared.saturating_sub(mismatched), compared, alpha)
}

/// The prior Beta(1/8, 1): nearly all its weight is on small rates, where a migration's are. At no mismatch in
/// 10,000 its bound is 1.4 times that of a single look; a flat prior's is 4 times, and a smaller exponent would
/// take more for each mismatch seen.
const PRIOR: f64 = 0.125;
const ALPHA_MIN: f64 = 1e-12;
const ALPHA_MAX: f64 = 0.5;
/// Of the bound, as a share of it; what is given back errs on the safe side.
const PRECISION: f64 = 1e-9;

fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falls_with_agreement_and_rises_with_mismatches() {
        let bound = |mismatched, compared| mismatch_rate_upper_bound(mismatched, compared, 0.05);
        assert!(bound(0, 100) > bound(0, 1_000) && bound(0, 1_000) > bound(0, 10_000));
        assert!(bound(0, 1_000) < bound(1, 1_000) && bound(1, 1_000) < bound(10, 1_000));
        assert!(bound(10, 1_000) > 0.01, "never below what was observed");
    }

    #[test]
    fn costs_less_than_half_more_than_a_single_look() {
        // Without a mismatch, a single look has the exact bound 1 - alpha^(1/n).
        for compared in [1_000u64, 10_000, 1_000_000, 100_000_000] {
            let single = -(0.05f64.ln() / compared as f64).exp_m1();
            let ratio = mismatch_rate_upper_bound(0, compared, 0.05) / single;
            assert!(ratio > 1.0 && ratio < 1.8, "{ratio} at {compared}");
        }
    }

    #[test]
    fn smaller_alpha_is_stricter() {
        assert!(mismatch_rate_upper_bound(0, 1_000, 0.001) > mismatch_rate_upper_bound(0, 1_000, 0.05));
    }

    #[test]
    fn the_ends_are_safe() {
        assert_eq!(mismatch_rate_upper_bound(5, 5, 0.05), 1.0);
        assert_eq!(mismatch_rate_upper_bound(9, 5, 0.05), 1.0);
        assert_eq!(mismatch_rate_lower_bound(0, 5, 0.05), 0.0);
        assert!(mismatch_rate_upper_bound(0, u64::MAX, f64::NAN).is_finite());
        assert!(mismatch_rate_upper_bound(u64::MAX - 1, u64::MAX, 0.0) <= 1.0);
    }
}
