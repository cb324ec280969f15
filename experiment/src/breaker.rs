//! The circuit breaker: after failures in a row the candidate rests, then single probes decide.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// When to stop calling a failing candidate, and when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row (timeouts, panics, errors that control did not have) that open the breaker.
    /// Default 10: single failures are observations, ten in a row are an outage.
    pub failures: u32,
    /// How long it stays open before a single call may probe. Default 5 s.
    pub rest: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { failures: 10, rest: Duration::from_secs(5) }
    }
}

/// What the breaker says about one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Go on.
    Closed,
    /// Go on; whether the breaker closes depends on how this call ends.
    Probe,
    /// Shed it.
    Open,
}

#[derive(Debug)]
pub(crate) struct Breaker {
    policy: Option<BreakerPolicy>,
    failures: AtomicU32,
    /// When the next probe may go, in nanoseconds of the experiment's clock; 0 while closed.
    probe_at: AtomicU64,
}

impl Breaker {
    pub(crate) fn new(policy: Option<BreakerPolicy>) -> Self {
        Self { policy, failures: AtomicU32::new(0), probe_at: AtomicU64::new(0) }
    }

    #[inline]
    pub(crate) fn pass(&self, now_ns: impl FnOnce() -> u64) -> Pass {
        let (Some(policy), probe_at @ 1..) = (self.policy, self.probe_at.load(Ordering::Relaxed)) else {
            return Pass::Closed;
        };
        let now = now_ns();
        if now < probe_at {
            return Pass::Open;
        }
        // One caller wins the probe. The next may go after another rest, even if this one never ends.
        let next = probe_time(now, policy);
        match self.probe_at.compare_exchange(probe_at, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Pass::Probe,
            Err(_) => Pass::Open,
        }
    }

    pub(crate) fn succeeded(&self, pass: Pass) {
        if self.policy.is_none() {
            return;
        }
        if pass == Pass::Probe {
            self.probe_at.store(0, Ordering::Relaxed);
        }
        // Calls that began before the breaker opened do not close it.
        if self.failures.load(Ordering::Relaxed) != 0 && (pass == Pass::Probe || !self.is_open()) {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn failed(&self, pass: Pass, now_ns: impl FnOnce() -> u64) {
        let Some(policy) = self.policy else {
            return;
        };
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if pass == Pass::Probe || (failures >= policy.failures && !self.is_open()) {
            self.probe_at.store(probe_time(now_ns(), policy), Ordering::Relaxed);
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.probe_at.load(Ordering::Relaxed) != 0
    }
}

/// Never 0, which means closed.
fn probe_time(now_ns: u64, policy: BreakerPolicy) -> u64 {
    now_ns.saturating_add(crate::sketch::nanoseconds(policy.rest)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: u64 = 1_000;

    fn breaker() -> Breaker {
        Breaker::new(Some(BreakerPolicy { failures: 3, rest: Duration::from_nanos(REST) }))
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let breaker = breaker();
        breaker.failed(Pass::Closed, || 0);
        breaker.failed(Pass::Closed, || 0);
        breaker.succeeded(Pass::Closed);
        breaker.failed(Pass::Closed, || 0);
        breaker.failed(Pass::Closed, || 0);
        assert_eq!(breaker.pass(|| 1), Pass::Closed);
        breaker.failed(Pass::Closed, || 0);
        assert_eq!(breaker.pass(|| 1), Pass::Open);
    }

    #[test]
    fn one_probe_after_each_rest_and_its_end_decides() {
        let breaker = breaker();
        (0..3).for_each(|_| breaker.failed(Pass::Closed, || 0));
        assert_eq!(breaker.pass(|| REST), Pass::Probe);
        assert_eq!(breaker.pass(|| REST), Pass::Open, "one probe at a time");
        breaker.failed(Pass::Probe, || REST + 10);
        assert_eq!(breaker.pass(|| 2 * REST), Pass::Open, "a failed probe rests from its end");
        assert_eq!(breaker.pass(|| 2 * REST + 10), Pass::Probe);
        breaker.succeeded(Pass::Closed);
        assert_eq!(breaker.pass(|| 2 * REST + 11), Pass::Open, "a late call from before does not close it");
        breaker.succeeded(Pass::Probe);
        assert_eq!(breaker.pass(|| 2 * REST + 12), Pass::Closed);
    }
}
