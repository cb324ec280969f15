//! The judge by simulation: an operator who looks after every call, and stops at the first look that
//! pleases, is wrong no more often than promised.

use crossfade_experiment::{
    LatencySketch,
    judge::{mismatch_rate_lower_bound, mismatch_rate_upper_bound, quantile_upper_bound},
};

const LOOKS: u64 = 10_000;
const RUNS: u64 = 400;

/// The share of runs in which a look would have passed a candidate whose true rate is the limit: each such
/// pass is false.
fn false_passes(rate: f64, alpha: f64, bound: impl Fn(u64, u64, f64) -> f64) -> f64 {
    let mut random = fastrand::Rng::with_seed(17);
    let mut passes = 0;
    for _ in 0..RUNS {
        let mut mismatched = 0;
        let mut passed = false;
        for compared in 1..=LOOKS {
            mismatched += u64::from(random.f64() < rate);
            // Where the observed rate is above the true one, so is the bound: such looks cannot pass.
            let may_pass = !passed && (mismatched as f64) < rate * compared as f64;
            passed = passed || (may_pass && bound(mismatched, compared, alpha) < rate);
        }
        passes += u64::from(passed);
    }
    passes as f64 / RUNS as f64
}

/// Pass rates of four hundred runs scatter by three standard errors at most.
fn ceiling(alpha: f64) -> f64 {
    alpha + 3.0 * (alpha * (1.0 - alpha) / RUNS as f64).sqrt()
}

#[test]
fn peeking_ten_thousand_times_passes_no_more_often_than_alpha() {
    for (rate, alpha) in [(0.01, 0.05), (0.002, 0.2)] {
        let passes = false_passes(rate, alpha, upper);
        assert!(passes <= ceiling(alpha), "false passes {passes} at rate {rate}, alpha {alpha}");
    }
}

#[test]
fn a_single_look_bound_would_not_stand_that() {
    // The exact one-look bound where no mismatch was seen, and the normal one elsewhere: what a dashboard shows.
    let naive = |mismatched: u64, compared: u64, alpha: f64| {
        let (count, observed) = (compared as f64, mismatched as f64 / compared as f64);
        if mismatched == 0 {
            1.0 - alpha.powf(1.0 / count)
        } else {
            observed + 1.645 * (observed * (1.0 - observed) / count).sqrt()
        }
    };
    let passes = false_passes(0.01, 0.05, naive);
    assert!(passes > 2.0 * ceiling(0.05), "the simulation can tell: {passes}");
}

#[test]
fn the_lower_bound_stands_it_too() {
    let mirrored = |mismatched: u64, compared: u64, alpha: f64| {
        // A false pass here: the lower bound above the true rate.
        1.0 - mismatch_rate_lower_bound(compared - mismatched, compared, alpha)
    };
    let passes = false_passes_sparse(0.3, 0.05, mirrored);
    assert!(passes <= ceiling(0.05), "{passes}");
}

#[test]
fn a_percentiles_bound_stands_it_too() {
    let mut random = fastrand::Rng::with_seed(3);
    let (runs, alpha, mut wrong) = (200, 0.05, 0);
    // Uniform on 1..=1000 µs: the 90th percentile is 900 µs; bins are within 0.8 %.
    for _ in 0..runs {
        let mut sketch = LatencySketch::default();
        let mut failed = false;
        for look in 1..=2_000 {
            sketch.record(std::time::Duration::from_micros(random.u64(1..=1_000)));
            if look % 10 == 0 {
                let bound = quantile_upper_bound(&sketch, 0.9, alpha);
                failed = failed || bound.is_some_and(|bound| bound.as_secs_f64() < 900e-6 * 0.99);
            }
        }
        wrong += u32::from(failed);
    }
    assert!(
        f64::from(wrong) / f64::from(runs) <= 0.05 + 3.0 * (0.05f64 * 0.95 / f64::from(runs)).sqrt(),
        "{wrong}"
    );
}

/// The library's bound. It is never below the observed rate, so where that is too high nothing need be worked
/// out.
fn upper(mismatched: u64, compared: u64, alpha: f64) -> f64 {
    let observed = mismatched as f64 / compared as f64;
    if observed > 0.1 { 1.0 } else { mismatch_rate_upper_bound(mismatched, compared, alpha) }
}

/// Looks at every tenth call.
fn false_passes_sparse(rate: f64, alpha: f64, bound: impl Fn(u64, u64, f64) -> f64) -> f64 {
    let mut random = fastrand::Rng::with_seed(5);
    let mut passes = 0;
    for _ in 0..RUNS {
        let mut mismatched = 0;
        let mut passed = false;
        for compared in 1..=2_000 {
            mismatched += u64::from(random.f64() < rate);
            if compared % 10 == 0 {
                passed = passed || bound(mismatched, compared, alpha) < rate;
            }
        }
        passes += u64::from(passed);
    }
    passes as f64 / RUNS as f64
}
