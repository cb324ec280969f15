//! Whether a call takes part, and with which candidates: everything that is decided before control runs.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    Branch, Experiment, Hook, HookFailure, Incomparable, Outcome, Verdict, View,
    breaker::Pass,
    experiment::Inner,
    hooks::{Picture, guard},
    ledger::{Bin, Entry},
    roster::Candidate,
    sample::Draw,
};

/// Whom a call is about, as far as its end needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) bucket: u32,
    /// The key itself, where the experiment has cohorts or shows keys.
    pub(crate) key: Option<Box<[u8]>>,
}

/// One candidate's leave to run in one call.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) entry: Entry,
    pub(crate) pass: Pass,
}

/// What the call as a whole decided, for each of its candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    TakePart,
    Skip,
    HookFailed(HookFailure),
    Shed,
}

/// One of the slots for calls in flight, given back however the call ends.
pub(crate) struct Slot<V, E, L: View<V>>(Arc<Inner<V, E, L>>)
where
    V: 'static;

impl<V, E, L: View<V>> Drop for Slot<V, E, L> {
    fn drop(&mut self) {
        self.0.slots.give_back();
    }
}

impl<V, E, L: View<V>> Experiment<V, E, L> {
    /// All that an unsampled call ever runs of an experiment.
    #[inline]
    pub(crate) fn draw(&self, key: &[u8]) -> Draw {
        self.inner.switch.draw(self.inner.seed, key)
    }

    /// Leave for a call with one candidate in line.
    #[inline]
    pub(crate) fn enter_in_line(&self, key: &[u8]) -> Option<Ticket> {
        let inner = &self.inner;
        let only = &inner.roster.only;
        inner.open(only, only.ledger.open_in_line(), key, &inner.decide(key))
    }

    /// Leave for a call off the caller's path, whose candidates share a slot.
    pub(crate) fn enter_off_path(&self, key: &[u8]) -> (Decision, Option<Slot<V, E, L>>) {
        let inner = &self.inner;
        // The slot first: hooks are for calls that run.
        if !inner.slots.take() {
            return (Decision::Shed, None);
        }
        let slot = Slot(inner.clone());
        (inner.decide(key), Some(slot))
    }
}

impl<V, E, L: View<V>> Inner<V, E, L> {
    fn decide(&self, key: &[u8]) -> Decision {
        if self.closed.load(Ordering::Relaxed) {
            return Decision::Shed;
        }
        let mut failures = Vec::new();
        let takes_part = match &self.run_if {
            Some(run_if) => guard(Hook::RunIf, &mut failures, || run_if(key)).unwrap_or(false),
            None => true,
        };
        if let (true, Some(before_run)) = (takes_part, &self.before_run) {
            guard(Hook::BeforeRun, &mut failures, || before_run(key));
        }
        match (failures.pop(), takes_part) {
            (Some(failure), _) => Decision::HookFailed(failure),
            (None, true) => Decision::TakePart,
            (None, false) => Decision::Skip,
        }
    }

    /// Opens a candidate's account of a call, and settles it at once if the candidate is not to run.
    #[inline]
    pub(crate) fn open(
        &self,
        candidate: &Candidate,
        mut entry: Entry,
        key: &[u8],
        decision: &Decision,
    ) -> Option<Ticket> {
        match decision {
            Decision::TakePart => {
                let now = || self.clock.now_ns();
                // Budget before breaker: a probe must not be spent on a call that is shed.
                let pass = if self.budget.take(now) { candidate.breaker.pass(now) } else { Pass::Open };
                if pass != Pass::Open {
                    return Some(Ticket { entry, pass });
                }
                entry.settle(Bin::Shed);
            }
            Decision::Shed => entry.settle(Bin::Shed),
            Decision::Skip => entry.settle(Bin::Skipped),
            Decision::HookFailed(failure) => {
                entry.settle(Bin::Incomparable);
                let verdict = Verdict::Incomparable(Incomparable::Hook);
                if self.is_wanted(&verdict) {
                    let (subject, failures) = (self.subject(key), vec![failure.clone()]);
                    let sides = (Branch::not_run(), Branch::not_run());
                    self.publish(&self.observation(
                        candidate,
                        &entry,
                        &subject,
                        sides,
                        verdict,
                        Vec::new(),
                        failures,
                    ));
                }
            }
        }
        None
    }

    /// As [`open`](Self::open), of the only candidate, off the caller's path.
    pub(crate) fn open_only(&self, key: &[u8], decision: &Decision) -> Option<Ticket> {
        let only = &self.roster.only;
        self.open(only, only.ledger.open(), key, decision)
    }

    pub(crate) fn subject(&self, key: &[u8]) -> Subject {
        Subject {
            bucket: self.seed.bucket(key).ppm(),
            key: (self.hooks.cohort.is_some() || self.show_key.is_some()).then(|| key.into()),
        }
    }
}

impl Branch {
    fn not_run() -> Self {
        Self::new(Outcome::NotRun, 0, None, &mut Picture::default().old)
    }
}
