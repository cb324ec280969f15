//! The candidates of an experiment: each with its own account and its own breaker.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{BreakerPolicy, Tally, breaker::Breaker, ledger::Ledger};

/// One candidate.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) name: Arc<str>,
    pub(crate) ledger: Ledger,
    pub(crate) breaker: Breaker,
}

impl Candidate {
    fn new(name: Arc<str>, epoch: u64, cohorts_max: usize, breaker: Option<BreakerPolicy>) -> Arc<Self> {
        let ledger = Ledger::new(epoch, name.clone(), cohorts_max);
        Arc::new(Self { name, ledger, breaker: Breaker::new(breaker) })
    }
}

/// All candidates: the one that most experiments have, and those that calls have named.
#[derive(Debug)]
pub(crate) struct Roster {
    pub(crate) only: Arc<Candidate>,
    named: Mutex<BTreeMap<Arc<str>, Arc<Candidate>>>,
    cohorts_max: usize,
    breaker: Option<BreakerPolicy>,
}

impl Roster {
    pub(crate) fn new(
        name: Arc<str>,
        epoch: u64,
        cohorts_max: usize,
        breaker: Option<BreakerPolicy>,
    ) -> Self {
        let only = Candidate::new(name, epoch, cohorts_max, breaker);
        Self { only, named: Mutex::default(), cohorts_max, breaker }
    }

    /// The candidate of that name; it joins with its first call.
    pub(crate) fn named(&self, name: &str) -> Arc<Candidate> {
        if *self.only.name == *name {
            return self.only.clone();
        }
        let mut named = self.lock();
        if let Some(candidate) = named.get(name) {
            return candidate.clone();
        }
        let name: Arc<str> = name.into();
        let candidate =
            Candidate::new(name.clone(), self.only.ledger.epoch(), self.cohorts_max, self.breaker);
        named.insert(name, candidate.clone());
        candidate
    }

    pub(crate) fn set_epoch(&self, epoch: u64) {
        let named = self.lock();
        self.only.ledger.set_epoch(epoch);
        named.values().for_each(|candidate| candidate.ledger.set_epoch(epoch));
    }

    pub(crate) fn read(&self, experiment: &str) -> Vec<Tally> {
        self.each(|candidate| candidate.ledger.read(experiment))
    }

    pub(crate) fn drain(&self, experiment: &str) -> Vec<Tally> {
        self.each(|candidate| candidate.ledger.drain(experiment))
    }

    pub(crate) fn in_flight(&self) -> u64 {
        let named = self.lock();
        let others = named.values().map(|candidate| candidate.ledger.in_flight()).sum::<u64>();
        self.only.ledger.in_flight() + others
    }

    fn each(&self, tallies: impl Fn(&Candidate) -> Vec<Tally>) -> Vec<Tally> {
        let mut all = tallies(&self.only);
        all.extend(self.lock().values().flat_map(|candidate| tallies(candidate)));
        all
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Candidate>>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
