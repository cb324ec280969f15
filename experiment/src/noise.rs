//! The noise baseline: control against control. It explains mismatches, and hides none.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// How often control differed from itself when it was read twice, a moment apart: what a candidate cannot be
/// blamed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Noise {
    /// Calls whose control was read twice.
    pub compared: u64,
    /// Those of them in which it differed from itself.
    pub differed: u64,
}

impl Noise {
    /// The share of calls in which control differed from itself; `None` where none was read twice.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        (self.compared > 0).then(|| self.differed as f64 / self.compared as f64)
    }
}

#[derive(Debug, Default)]
pub(crate) struct NoiseCounts {
    agreed: AtomicU64,
    differed: AtomicU64,
}

impl NoiseCounts {
    pub(crate) fn count(&self, agrees: bool) {
        let counter = if agrees { &self.agreed } else { &self.differed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Noise {
        let differed = self.differed.load(Ordering::Relaxed);
        Noise { compared: differed + self.agreed.load(Ordering::Relaxed), differed }
    }
}
