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

/// One candidate's part in one call: leave to run it, and how.
#[derive(Debug)]
pub(crate) struct Run<B> {
    /// `None`: the experiment's only candidate.
    pub(crate) named: Option<Arc<Candidate>>,
    pub(crate) ticket: Ticket,
    pub(crate) build: B,
}

/// A candidate that a call offers, before anything is decided.
pub(crate) struct Offered<B> {
    pub(crate) candidate: Arc<Candidate>,
    pub(crate) build: B,
}

/// One of the slots for calls in flight, given back however the call ends.
pub(crate) struct Slot<V, E, L: View<V>>(Arc<Inner<V, E, L>>)
where
    V: 'static;

impl<V, E, L: View<V>> Slot<V, E, L> {
    pub(crate) fn take(inner: &Arc<Inner<V, E, L>>) -> Option<Self> {
        inner.slots.take().then(|| Self(inner.clone()))
    }
}

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

    /// As [`draw`](Self::draw), for a call with one candidate.
    #[inline]
    pub(crate) fn draw_one(&self, key: &[u8]) -> Draw {
        match self.draw(key) {
            Draw::ForcedName => self.inner.draw_forced(),
            draw => draw,
        }
    }
}

impl<V, E, L: View<V>> Inner<V, E, L> {
    #[cold]
    fn draw_forced(&self) -> Draw {
        match self.forced_name() {
            Some(name) if *name == *self.roster.only.name => Draw::ForcedCandidate,
            _ => Draw::Bare,
        }
    }

    #[inline]
    pub(crate) fn decide(&self, key: &[u8]) -> Decision {
        match self.closed.load(Ordering::Relaxed) {
            true => Decision::Shed,
            false if self.run_if.is_none() && self.before_run.is_none() => Decision::TakePart,
            false => self.decide_by_hooks(key),
        }
    }

    fn decide_by_hooks(&self, key: &[u8]) -> Decision {
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

    /// A candidate's pass in line, unless it is not to run: then that is counted.
    #[inline]
    pub(crate) fn enter(&self, candidate: &Candidate, key: &[u8], decision: &Decision) -> Option<Pass> {
        let pass = (*decision == Decision::TakePart).then(|| self.admit(candidate)).flatten();
        if pass.is_none() {
            self.turn_away(candidate, candidate.ledger.open(), key, decision);
        }
        pass
    }

    /// Budget before breaker: a probe must not be spent on a call that is shed.
    #[inline]
    fn admit(&self, candidate: &Candidate) -> Option<Pass> {
        let now = || self.clock.now_ns();
        let pass = if self.budget.take(now) { candidate.breaker.pass(now) } else { Pass::Open };
        (pass != Pass::Open).then_some(pass)
    }

    /// Opens a candidate's account of a call, and settles it at once if the candidate is not to run.
    #[inline]
    pub(crate) fn open(
        &self,
        candidate: &Candidate,
        entry: Entry,
        key: &[u8],
        decision: &Decision,
    ) -> Option<Ticket> {
        if *decision == Decision::TakePart
            && let Some(pass) = self.admit(candidate)
        {
            return Some(Ticket { entry, pass });
        }
        self.turn_away(candidate, entry, key, decision);
        None
    }

    /// Counts a call that a candidate has no part in.
    #[inline(never)]
    fn turn_away(&self, candidate: &Candidate, mut entry: Entry, key: &[u8], decision: &Decision) {
        match decision {
            Decision::TakePart | Decision::Shed => entry.settle(Bin::Shed),
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
    }

    /// Opens the accounts of several candidates of one call. What is not to run is dropped here, unbuilt.
    pub(crate) fn open_all<B>(&self, offered: Vec<Offered<B>>, key: &[u8]) -> Vec<Run<B>> {
        let decision = self.decide(key);
        let run = |Offered { candidate, build }: Offered<B>| {
            let ticket = self.open(&candidate, candidate.ledger.open(), key, &decision)?;
            Some(Run { named: Some(candidate), ticket, build })
        };
        offered.into_iter().filter_map(run).collect()
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
