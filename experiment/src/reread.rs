//! Reading a mismatch again, round by round.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::sync::watch;

use crate::{
    Capture, HookFailure, Incomparable, Mismatch, Verdict, execute::stopped, experiment::Inner,
    hooks::Picture, limits::Slots,
};

/// Both sides, to be read again. Boxed: they are made for sampled calls alone, and called seldom.
pub(crate) struct Again<V, E> {
    pub(crate) control: Reread<V, E>,
    pub(crate) candidate: Reread<V, E>,
}

pub(crate) type Reread<V, E> =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<V, E>> + Send>> + Send + Sync>;

/// What one round showed.
enum Round {
    Agree,
    Differ(Picture),
    Moved,
    Unreadable,
}

/// Given back however the reading ends.
pub(crate) struct RecheckSlot<'a>(&'a Slots);

impl Drop for RecheckSlot<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Inner<V, E, L> {
    /// What becomes of a mismatch on fresh reads. Where there is no room to read again, or the process
    /// stops, it counts as it was seen.
    pub(crate) async fn read_again(
        &self,
        again: &Again<V, E>,
        first: Picture,
        stop: &mut watch::Receiver<bool>,
        failures: &mut Vec<HookFailure>,
    ) -> (Verdict, Picture) {
        let Some(_slot) = self.recheck_slot() else {
            return (Verdict::Mismatched(Mismatch::Unchecked), first);
        };
        let mut standing = (Verdict::Incomparable(Incomparable::Moving), first);
        for round in 0..self.recheck.rounds {
            tokio::select! {
                biased;
                () = stopped(stop) => return match standing {
                    (Verdict::Mismatched(mismatch), picture) => (Verdict::Mismatched(mismatch), picture),
                    (_, picture) => (Verdict::Mismatched(Mismatch::Unchecked), picture),
                },
                () = tokio::time::sleep(self.recheck.wait(round)) => {}
            }
            match self.read_round(again, stop, failures).await {
                Round::Agree => return (Verdict::Transient, standing.1),
                Round::Differ(picture) => standing = (Verdict::Mismatched(Mismatch::Persistent), picture),
                Round::Unreadable if !standing.0.is_mismatch() => {
                    standing.0 = Verdict::Incomparable(Incomparable::Unreadable);
                }
                Round::Unreadable | Round::Moved => {}
            }
        }
        standing
    }

    /// Room for one more reading behind.
    pub(crate) fn recheck_slot(&self) -> Option<RecheckSlot<'_>> {
        self.recheck_slots.take().then(|| RecheckSlot(&self.recheck_slots))
    }

    /// Control, candidate, control: what stands between two equal reads of control was read of that state.
    async fn read_round(
        &self,
        again: &Again<V, E>,
        stop: &mut watch::Receiver<bool>,
        failures: &mut Vec<HookFailure>,
    ) -> Round {
        let before = self.reread(&again.control, stop, failures).await;
        let between = self.reread(&again.candidate, stop, failures).await;
        let after = self.reread(&again.control, stop, failures).await;
        let (Some(before), Some(between), Some(after)) = (before.seen(), between.seen(), after.seen()) else {
            return Round::Unreadable;
        };
        let seen = self.look(before, failures, |before, failures| {
            self.look(between, failures, |between, failures| {
                self.look(after, failures, |after, failures| {
                    let (verdict, picture) = self.weigh(after, between, failures);
                    if matches!(verdict, Verdict::Matched | Verdict::Ignored)
                        || self.hooks.agrees(before, between, failures)
                    {
                        Round::Agree
                    } else if !verdict.is_mismatch() {
                        Round::Unreadable
                    } else if self.hooks.unmoved(before, after, failures) {
                        Round::Differ(picture)
                    } else {
                        Round::Moved
                    }
                })
            })
        });
        seen.flatten().flatten().unwrap_or(Round::Unreadable)
    }
}
