//! What calls in line took that matched, as noted by the threads that they ended on, until it is posted to the ledger.
//!
//! Nearly all calls match. Counting them where all threads count would be three locked additions a call, on cache lines
//! that travel between processors; a journal's line is two plain stores into memory of the thread's own.
//!
//! Lines are added by the owning thread alone, and posted only under the ledger's lock. What closes which hazard:
//! - a line read before it was written: `written` is stored with release after it, and loaded with acquire;
//! - a line overwritten before it was posted: the owner adds one only where `posted`, loaded with acquire, leaves room;
//! - a line posted for another epoch than its call's: the owner changes the journal's epoch under the lock, when all
//!   lines are posted;
//! - a caller that waits for whoever reads the counts: the owner only tries the lock, and counts on the shared page where it
//!   is taken;
//! - a thread that has ended: its journal stays, is posted like any other, and goes on with the next thread that takes its
//!   place.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sketch::Bin;

/// So many that the lock is taken rarely, and few enough for a page of memory with each thread.
const LINES: usize = if cfg!(miri) { 4 } else { 512 };

/// One thread's journal of one ledger, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Journal {
    epoch: AtomicU64,
    written: AtomicU64,
    posted: AtomicU64,
    /// The latencies' bins: control's above, the candidate's below.
    lines: [AtomicU32; LINES],
}

impl Journal {
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            epoch: AtomicU64::new(epoch),
            written: AtomicU64::new(0),
            posted: AtomicU64::new(0),
            lines: [const { AtomicU32::new(0) }; LINES],
        }
    }

    /// Adds a line, by the owning thread; says whether there was room for it, and the epoch was this one.
    #[inline]
    pub(crate) fn note(&self, epoch: u64, control: Bin, candidate: Bin) -> bool {
        let written = self.written.load(Ordering::Relaxed);
        let waiting = written - self.posted.load(Ordering::Acquire);
        if self.epoch.load(Ordering::Relaxed) != epoch || waiting >= LINES as u64 {
            return false;
        }
        let line = u32::from(control.0) << 16 | u32::from(candidate.0);
        self.lines[written as usize % LINES].store(line, Ordering::Relaxed);
        self.written.store(written + 1, Ordering::Release);
        true
    }

    /// The epoch of the lines that wait, if any do. Only under the ledger's lock.
    pub(crate) fn waiting(&self) -> Option<u64> {
        let waits = self.written.load(Ordering::Acquire) != self.posted.load(Ordering::Relaxed);
        waits.then(|| self.epoch.load(Ordering::Relaxed))
    }

    /// Hands out the lines that wait, each once, and says how many they were. Only under the ledger's lock.
    pub(crate) fn post(&self, mut line: impl FnMut(Bin, Bin)) -> u64 {
        let (posted, written) = (self.posted.load(Ordering::Relaxed), self.written.load(Ordering::Acquire));
        for number in posted..written {
            let bins = self.lines[number as usize % LINES].load(Ordering::Relaxed);
            line(Bin((bins >> 16) as u16), Bin(bins as u16));
        }
        self.posted.store(written, Ordering::Release);
        written - posted
    }

    /// Goes on with another epoch: by the owning thread, under the ledger's lock, when all lines are posted.
    pub(crate) fn turn_to(&self, epoch: u64) {
        debug_assert!(self.waiting().is_none(), "lines of one epoch at a time");
        self.epoch.store(epoch, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_full_journal_and_one_of_another_epoch_take_no_line() {
        let journal = Journal::new(1);
        for _ in 0..LINES {
            assert!(journal.note(1, Bin(2), Bin(3)));
        }
        assert!(!journal.note(1, Bin(2), Bin(3)), "full");
        assert_eq!(
            journal.post(|control, candidate| assert_eq!((control.0, candidate.0), (2, 3))),
            LINES as u64
        );
        assert!(!journal.note(2, Bin(2), Bin(3)), "its lines are of the first epoch");
        journal.turn_to(2);
        assert!(journal.note(2, Bin(2), Bin(3)));
        assert_eq!(journal.waiting(), Some(2));
    }

    #[test]
    fn a_line_added_while_others_are_posted_is_posted_once() {
        let calls = if cfg!(miri) { 40 } else { 200_000u64 };
        let journal = Journal::new(1);
        let ledger = Mutex::new(vec![0u64; 1 << 10]);
        let post = || {
            let mut counts = ledger.lock().unwrap();
            journal.post(|control, candidate| {
                assert_eq!(control.0, candidate.0);
                counts[usize::from(control.0)] += 1;
            });
        };
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for call in 0..calls {
                    let bin = (call % 1024) as u16;
                    while !journal.note(1, Bin(bin), Bin(bin)) {
                        std::thread::yield_now();
                    }
                }
            });
            while !writer.is_finished() {
                post();
            }
        });
        post();
        let counts = ledger.into_inner().unwrap();
        assert_eq!(counts.iter().sum::<u64>(), calls);
        let (least, most) = (counts.iter().min(), counts.iter().max());
        assert!(cfg!(miri) || most.unwrap() - least.unwrap() <= 1, "{least:?} {most:?}");
    }
}
