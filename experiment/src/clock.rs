//! The one place that reads time.

use std::time::Instant;

/// Nanoseconds since the experiment was built.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn started() -> Self {
        Self { start: Instant::now() }
    }

    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}
