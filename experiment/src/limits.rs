//! What the candidate may cost: time, calls in flight, calls per second.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Bounds on candidates that run off the caller's path. What is over a bound is shed and counted; nothing
/// is ever queued.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// How long a candidate may take. Default 1 s: long after a caller has lost interest. One that blocks its thread
    /// on a shared runtime is found out only when it lets go.
    pub timeout: Duration,
    /// How many candidates may run at once. Default 64: below the size of common connection pools, so that
    /// candidates cannot starve callers of connections.
    pub in_flight_max: u32,
    /// How many mismatches may wait for their second read at once. Default 64; beyond it a mismatch
    /// counts unchecked.
    pub rechecks_max: u32,
    /// How many candidates may start in one second. Default: no bound.
    pub budget_per_second: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(1), in_flight_max: 64, rechecks_max: 64, budget_per_second: None }
    }
}

/// Counts what is in flight, up to a bound. On cache lines of its own, as candidates write here when they end, and every
/// call reads what would stand beside it.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slots {
    taken: AtomicU64,
    max: u64,
}

impl Slots {
    pub(crate) fn new(max: u32) -> Self {
        Self { taken: AtomicU64::new(0), max: max.into() }
    }

    /// Whether there is none. Reads only: calls that are shed must not fight over who writes.
    pub(crate) fn are_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.max
    }

    /// Takes a slot, or says that there is none.
    pub(crate) fn take(&self) -> bool {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        if before >= self.max {
            self.taken.fetch_sub(1, Ordering::Relaxed);
        }
        before < self.max
    }

    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts starts within each second of the experiment's clock: second in the upper half of the word, starts in the lower.
#[derive(Debug)]
pub(crate) struct Budget {
    window: AtomicU64,
    per_second: Option<u32>,
}

impl Budget {
    pub(crate) fn new(per_second: Option<u32>) -> Self {
        Self { window: AtomicU64::new(0), per_second }
    }

    /// Takes one start out of this second's budget, or says that it is spent.
    pub(crate) fn take(&self, now_ns: impl FnOnce() -> u64) -> bool {
        let Some(per_second) = self.per_second else {
            return true;
        };
        let second = (now_ns() / 1_000_000_000) & 0xffff_ffff;
        self.window
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |window| {
                let (at, spent) = (window >> 32, window & 0xffff_ffff);
                let spent = if at == second { spent } else { 0 };
                (spent < per_second.into()).then_some(second << 32 | (spent + 1))
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_end_at_their_bound_and_come_back() {
        let slots = Slots::new(2);
        assert!(!slots.are_taken() && slots.take() && slots.take() && !slots.take());
        assert!(slots.are_taken());
        slots.give_back();
        assert!(slots.take());
    }

    #[test]
    fn the_budget_starts_afresh_each_second() {
        let budget = Budget::new(Some(2));
        let second = 1_000_000_000;
        assert!(budget.take(|| second) && budget.take(|| second + 5));
        assert!(!budget.take(|| 2 * second - 1));
        assert!(budget.take(|| 2 * second));
    }
}
