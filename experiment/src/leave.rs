//! One candidate's leave to run in line: nobody waits for such calls, so it holds no page of the ledger.

use std::ops::Deref;

use crate::{
    admit::Ticket,
    breaker::Pass,
    ledger::{Bin, Entry},
    roster::Candidate,
};

/// How a call in line holds its candidate: borrowed where there is one, counted where there are several.
pub(crate) trait Holds: Deref<Target = Candidate> {}

impl<C: Deref<Target = Candidate>> Holds for C {}

/// A call in line that has not ended. Dropped without having been settled, it was cut off.
#[derive(Debug)]
pub(crate) struct Leave<C: Holds> {
    pub(crate) candidate: C,
    epoch: u64,
    pass: Pass,
    settled: bool,
}

impl<C: Holds> Leave<C> {
    #[inline]
    pub(crate) fn new(candidate: C, pass: Pass) -> Self {
        let epoch = candidate.ledger.epoch();
        Self { candidate, epoch, pass, settled: false }
    }

    /// The end of most calls: both sides agree, and there is nobody to tell.
    #[inline]
    pub(crate) fn matched(&mut self, control_ns: u64, candidate_ns: u64) {
        self.settled = true;
        self.candidate.breaker.succeeded(self.pass);
        self.candidate.ledger.matched_in_line(self.epoch, control_ns, candidate_ns);
    }

    /// The account that all other ends are written to.
    pub(crate) fn open(&mut self) -> Ticket {
        self.settled = true;
        Ticket { entry: self.entry(), pass: self.pass }
    }

    pub(crate) fn shed(&mut self) {
        self.open().entry.settle(Bin::Shed);
    }

    #[cold]
    fn entry(&self) -> Entry {
        self.candidate.ledger.open_in(self.epoch)
    }
}

impl<C: Holds> Drop for Leave<C> {
    #[inline]
    fn drop(&mut self) {
        if !self.settled {
            drop(self.entry());
        }
    }
}
