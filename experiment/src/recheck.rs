//! Reading a difference again: a candidate reads a moment later than control, and writers are active.

use std::time::Duration;

/// How a mismatch is read again before it counts.
///
/// Each round waits, then reads control, the candidate, and control once more. If the candidate agrees
/// with either of control's values, the difference was a race: transient. If it differs while control
/// stood still (by the version fingerprint where the experiment has one, else by `compare`), it is
/// persistent, unless a later round agrees. If control moved in every round, nothing was learnt:
/// incomparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecheckPolicy {
    /// How long to wait before the first round; each further round waits twice as long as the one before.
    /// Default 100 ms: beyond the usual lag of an inline follower.
    pub delay: Duration,
    /// How many rounds at most. Default 3.
    pub rounds: u32,
}

impl Default for RecheckPolicy {
    fn default() -> Self {
        Self { delay: Duration::from_millis(100), rounds: 3 }
    }
}

impl RecheckPolicy {
    /// The wait before a round, counted from 0.
    pub(crate) fn wait(self, round: u32) -> Duration {
        self.delay.saturating_mul(1u32.checked_shl(round).unwrap_or(u32::MAX))
    }
}
