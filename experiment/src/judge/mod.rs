//! Judgement: pure functions from counts and sketches to a verdict that can say why not yet.

mod bound;
mod latency;
mod verdict;

pub use bound::{mismatch_rate_lower_bound, mismatch_rate_upper_bound};
pub use latency::{quantile_lower_bound, quantile_upper_bound};
pub use verdict::{Criteria, Judgement, Shortfall, judge};
