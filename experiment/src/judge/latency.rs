//! Bounds on a latency's percentiles, by the same method as on rates.

use std::time::Duration;

use super::bound::{mismatch_rate_lower_bound, mismatch_rate_upper_bound};
use crate::LatencySketch;

/// An upper confidence bound on the latency that a share `q` of calls does not exceed; `None` where too few
/// calls were seen to have one.
///
/// The smallest latency `x` of which the share of slower calls is surely at most `1 - q`. At the true
/// quantile that share's bound fails with probability `alpha` at most, over all looks; at any faster `x` more
/// calls are slower, so it cannot pass where the quantile's own does not.
#[must_use]
pub fn quantile_upper_bound(sketch: &LatencySketch, q: f64, alpha: f64) -> Option<Duration> {
    let count = sketch.count();
    let mut slower = 0u64;
    let mut bound = None;
    // From the slowest: as soon as too many calls may be slower, the latency before was the smallest.
    for (latency, calls) in sketch.bins().rev() {
        if mismatch_rate_upper_bound(slower, count, alpha) > 1.0 - q {
            break;
        }
        bound = Some(latency);
        slower = slower.saturating_add(calls);
    }
    bound
}

/// A lower confidence bound on the latency that a share `q` of calls does not exceed; zero where too few calls
/// were seen.
#[must_use]
pub fn quantile_lower_bound(sketch: &LatencySketch, q: f64, alpha: f64) -> Duration {
    let count = sketch.count();
    let mut slower_or_equal = 0u64;
    for (latency, calls) in sketch.bins().rev() {
        slower_or_equal = slower_or_equal.saturating_add(calls);
        if mismatch_rate_lower_bound(slower_or_equal, count, alpha) > 1.0 - q {
            return latency;
        }
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uniform(milliseconds: u64, rounds: u64) -> LatencySketch {
        let mut sketch = LatencySketch::default();
        for _ in 0..rounds {
            (1..=milliseconds).for_each(|ms| sketch.record(Duration::from_millis(ms)));
        }
        sketch
    }

    #[test]
    fn bounds_enclose_the_quantile_and_close_in() {
        for (rounds, width) in [(10, 1.0), (1_000, 0.05)] {
            let sketch = uniform(100, rounds);
            let low = quantile_lower_bound(&sketch, 0.5, 0.05).as_secs_f64();
            let high = quantile_upper_bound(&sketch, 0.5, 0.05).unwrap().as_secs_f64();
            assert!(low <= 0.0505 && 0.0495 <= high, "{low} {high}");
            assert!((high - low) / 0.05 < width, "{low} {high}");
        }
    }

    #[test]
    fn a_few_calls_have_no_p99() {
        assert_eq!(quantile_upper_bound(&uniform(50, 1), 0.99, 0.05), None);
        assert_eq!(quantile_upper_bound(&LatencySketch::default(), 0.5, 0.05), None);
        assert_eq!(quantile_lower_bound(&LatencySketch::default(), 0.5, 0.05), Duration::ZERO);
    }
}
