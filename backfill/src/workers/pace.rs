//! How many keys a transaction takes, so that it lasts as long as it should.

use std::time::Duration;

/// Keys of a worker's first transaction. Small, because nothing is known yet of how much a key costs; doubling, it takes
/// six transactions to the largest size.
const KEYS_FIRST: usize = 200;

/// How much the size may change from one transaction to the next. A single slow one (a lock, a checkpoint) says
/// little, and a single fast one less.
const CHANGE_MAX: f64 = 2.0;

/// The size of transactions, by what the last ones took.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    keys: usize,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Pace { keys: KEYS_FIRST }
    }

    /// How many keys the next transaction takes, of at most `max`.
    pub(crate) fn keys(&self, max: usize) -> usize {
        self.keys.clamp(1, max.max(1))
    }

    /// A transaction of so many keys took so long, and should have taken `target`.
    pub(crate) fn took(&mut self, keys: usize, elapsed: Duration, target: Duration) {
        let ratio = target.as_secs_f64() / elapsed.as_secs_f64().max(1e-6);
        // The rest of a chunk is fast because it is short: that says nothing against larger ones.
        if keys < self.keys && ratio >= 1.0 {
            return;
        }
        let next = keys as f64 * ratio.clamp(1.0 / CHANGE_MAX, CHANGE_MAX);
        self.keys = (next.round() as usize).max(1);
    }

    /// A transaction of so many keys failed because of one of them: halve, until it stands alone.
    pub(crate) fn failed(&mut self, keys: usize) {
        self.keys = (keys / 2).max(1);
    }
}

/// How long to rest after a piece of work, so that work makes up `percent` of the time.
pub(crate) fn rest_after(worked: Duration, percent: u32) -> Duration {
    let percent = percent.clamp(1, 100);
    worked.mul_f64(f64::from(100 - percent) / f64::from(percent))
}

/// How long to wait before a transaction that lost a race is tried again for the `attempt`-th time, counted from 0:
/// anything up to 20 ms, doubled each time, up to a second. Drawn at random, so that two that lost to each other do
/// not meet again.
pub(crate) fn jitter(attempt: u32) -> Duration {
    let most = Duration::from_millis(20).saturating_mul(1 << attempt.min(6)).min(Duration::from_secs(1));
    most.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(150);

    /// Where the size settles when a transaction costs `fixed` and `per_key`.
    fn settles(fixed: Duration, per_key: Duration) -> usize {
        let mut pace = Pace::new();
        for _ in 0..40 {
            let keys = pace.keys(10_000);
            pace.took(keys, fixed + per_key * keys as u32, TARGET);
        }
        pace.keys(10_000)
    }

    #[test]
    fn it_finds_the_size_that_takes_the_time() {
        let size = settles(Duration::from_millis(10), Duration::from_micros(100));
        assert!((1_300..=1_500).contains(&size), "{size}");
        assert_eq!(settles(Duration::ZERO, Duration::from_nanos(100)), 10_000, "as many as a chunk has");
        assert_eq!(settles(Duration::from_secs(1), Duration::from_secs(1)), 1, "never nothing");
    }

    #[test]
    fn one_slow_transaction_halves_and_no_more() {
        let mut pace = Pace::new();
        pace.took(200, Duration::from_secs(60), TARGET);
        assert_eq!(pace.keys(10_000), 100);
    }

    #[test]
    fn the_short_rest_of_a_chunk_says_nothing() {
        let mut pace = Pace::new();
        pace.took(3, Duration::from_millis(1), TARGET);
        assert_eq!(pace.keys(10_000), 200);
        pace.took(3, Duration::from_secs(1), TARGET);
        assert!(pace.keys(10_000) < 3, "but a slow one does");
    }

    #[test]
    fn failing_batches_shrink_to_a_single_key() {
        let mut pace = Pace::new();
        for _ in 0..20 {
            let keys = pace.keys(10_000);
            pace.failed(keys);
        }
        assert_eq!(pace.keys(10_000), 1);
    }

    #[test]
    fn rest_makes_up_the_other_share() {
        assert_eq!(rest_after(Duration::from_millis(10), 100), Duration::ZERO);
        assert_eq!(rest_after(Duration::from_millis(10), 50), Duration::from_millis(10));
        assert_eq!(rest_after(Duration::from_millis(10), 10), Duration::from_millis(90));
    }

    #[test]
    fn waits_stay_within_bounds() {
        for attempt in 0..100 {
            assert!(jitter(attempt) <= Duration::from_secs(1));
        }
    }
}
