//! The end of a process: candidates finish within a grace, or stop.

use std::{sync::atomic::Ordering, time::Duration};

use crate::{Experiment, Noise, Sampling, View};

impl<V, E, L: View<V>> Experiment<V, E, L> {
    /// Ends the experiment: no candidate starts any more, those under way have `grace` to end, and are dropped
    /// where they await then. The account is closed afterwards; drain it last. A candidate that blocks its
    /// thread cannot be stopped: it is not waited for beyond the grace either. On a
    /// [`CandidateRuntime`](crate::CandidateRuntime) its call is accounted for all the same; on a shared runtime
    /// it is when it lets go.
    ///
    /// Needs a Tokio runtime with timers.
    pub async fn shutdown(&self, grace: Duration) {
        let inner = &self.inner;
        inner.closed.store(true, Ordering::Relaxed);
        inner.switch.set(Sampling::Never);
        if tokio::time::timeout(grace, self.ended()).await.is_ok() {
            return;
        }
        inner.stop.send_replace(true);
        // One timer's tick or so: they are woken, and end at their next poll.
        let _ = tokio::time::timeout(STOP_MAX, self.ended()).await;
    }

    /// Until no call is in flight, and no task is left. Looked at by the clock: to be told would cost every call something,
    /// and a process ends once.
    async fn ended(&self) {
        while self.in_flight() > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.inner.stop.closed().await;
    }

    /// The noise baseline so far; see [`Builder::noise_baseline`](crate::Builder::noise_baseline).
    #[must_use]
    pub fn noise(&self) -> Noise {
        self.inner.noise.read()
    }
}

/// How long stopped candidates may take to notice: long for a task that is polled, and short for an operator.
const STOP_MAX: Duration = Duration::from_millis(500);

/// Short beside any grace.
const LOOK_EVERY: Duration = Duration::from_millis(1);
