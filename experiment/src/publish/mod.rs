//! Where observations go.

mod channel;
mod examples;
mod json_lines;
mod to_metrics;
mod to_tracing;

use std::sync::Arc;

pub use channel::ToChannel;
pub use examples::{Examples, Group};
pub use json_lines::JsonLines;
pub use to_metrics::ToMetrics;
pub use to_tracing::ToTracing;

use crate::{Observation, Verdict};

/// Takes observations.
///
/// # Contract
/// - `publish` never blocks: in-line modes call it on the caller's path. Hand over to a bounded queue, and
///   drop and count what does not fit.
/// - It may be called from many threads at once.
/// - A panic in it is caught, counted and goes nowhere.
pub trait Publisher: Send + Sync + 'static {
    /// Takes one observation.
    fn publish(&self, observation: &Observation);

    /// Whether an observation with this verdict is wanted at all; it is not even built where no publisher
    /// wants it. By default all are.
    fn wants(&self, verdict: &Verdict) -> bool {
        let _ = verdict;
        true
    }
}

impl<P: Publisher + ?Sized> Publisher for Arc<P> {
    fn publish(&self, observation: &Observation) {
        (**self).publish(observation);
    }

    fn wants(&self, verdict: &Verdict) -> bool {
        (**self).wants(verdict)
    }
}

/// A publisher that is a closure.
#[derive(Debug, Clone)]
pub struct PublishFn<F>(pub F);

impl<F: Fn(&Observation) + Send + Sync + 'static> Publisher for PublishFn<F> {
    fn publish(&self, observation: &Observation) {
        (self.0)(observation);
    }
}

/// Hands a publisher only what is not a match.
#[derive(Debug, Clone)]
pub struct Unmatched<P>(pub P);

impl<P: Publisher> Publisher for Unmatched<P> {
    fn publish(&self, observation: &Observation) {
        self.0.publish(observation);
    }

    fn wants(&self, verdict: &Verdict) -> bool {
        *verdict != Verdict::Matched && self.0.wants(verdict)
    }
}
