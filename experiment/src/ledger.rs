//! Where calls are counted: one page for each epoch and cohort of a candidate, written to without locks, and for calls in
//! line that matched a [`Journal`] for each thread.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering, fence},
    },
};

use arc_swap::ArcSwap;
use thread_local::ThreadLocal;

use crate::{
    Tally, Totals,
    journal::Journal,
    sketch::{self, Gathered, SharedSketch},
};

/// The buckets of the account. `Transient` and `Ignored` add up with `Matched` to `Totals::matched`: kept
/// apart here, so that a part is never seen without its whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bin {
    Skipped,
    Shed,
    TimedOut,
    Panicked,
    Errored,
    Incomparable,
    Matched,
    Transient,
    Ignored,
    Mismatched,
}

/// The first of the buckets in which calls end whose candidate has run.
const RAN: usize = Bin::TimedOut as usize;
const BINS: usize = Bin::Mismatched as usize + 1;

/// A pair of cache lines of its own: processors fetch them in pairs. What callers write and what candidates write stand
/// apart, or each call that is shed would wait for the line from the processor on which a candidate has just ended.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lines<T>(T);

/// One epoch's counts for one candidate and cohort.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) epoch: u64,
    candidate: Arc<str>,
    cohort: Option<Arc<str>>,
    /// Written by callers.
    refused: Lines<[AtomicU64; RAN]>,
    /// Written where candidates end.
    ended: Lines<[AtomicU64; BINS - RAN]>,
    control: SharedSketch,
    candidate_latency: SharedSketch,
}

impl Page {
    fn new(epoch: u64, candidate: Arc<str>, cohort: Option<Arc<str>>) -> Self {
        Self {
            epoch,
            candidate,
            cohort,
            refused: Lines::default(),
            ended: Lines::default(),
            control: SharedSketch::new(),
            candidate_latency: SharedSketch::new(),
        }
    }

    #[inline]
    pub(crate) fn count(&self, bin: Bin) {
        self.count_many(bin, 1);
    }

    #[inline]
    fn count_many(&self, bin: Bin, calls: u64) {
        self.counter(bin).fetch_add(calls, Ordering::Relaxed);
    }

    #[inline]
    fn counter(&self, bin: Bin) -> &AtomicU64 {
        match bin as usize {
            refused @ ..RAN => &self.refused.0[refused],
            ended => &self.ended.0[ended - RAN],
        }
    }

    /// A pair of latencies is recorded for the same calls on both sides, or the percentiles would not be
    /// of the same population.
    pub(crate) fn record_latencies(&self, control: sketch::Bin, candidate: sketch::Bin) {
        self.control.record(control);
        self.candidate_latency.record(candidate);
    }

    fn tally(&self, experiment: &str, take: bool) -> Tally {
        let value = |bin: Bin| match self.counter(bin) {
            count if take => count.swap(0, Ordering::Relaxed),
            count => count.load(Ordering::Relaxed),
        };
        let (transient, ignored) = (value(Bin::Transient), value(Bin::Ignored));
        let mut totals = Totals {
            eligible: 0,
            skipped: value(Bin::Skipped),
            shed: value(Bin::Shed),
            timed_out: value(Bin::TimedOut),
            panicked: value(Bin::Panicked),
            errored: value(Bin::Errored),
            incomparable: value(Bin::Incomparable),
            matched: value(Bin::Matched) + transient + ignored,
            mismatched: value(Bin::Mismatched),
            transient,
            ignored,
        };
        // Calls are counted as eligible when they end: an account that is read at any moment is closed.
        totals.eligible = totals.skipped + totals.dropped() + totals.compared();
        let sketch = |shared: &SharedSketch| if take { shared.take() } else { shared.read() };
        Tally {
            experiment: experiment.to_owned(),
            candidate: self.candidate.to_string(),
            cohort: self.cohort.as_deref().map(str::to_owned),
            epoch: self.epoch,
            totals,
            control_latency: sketch(&self.control),
            candidate_latency: sketch(&self.candidate_latency),
        }
    }
}

/// One eligible call that has not ended. Dropped without having been settled, it was cut off: its caller
/// or the process went away. Its page is held by a reference count: such calls are in flight for all to see.
#[derive(Debug)]
pub(crate) struct Entry {
    page: Arc<Page>,
    cut_off: Bin,
    settled: bool,
}

impl Entry {
    fn new(page: Arc<Page>) -> Self {
        Self { page, cut_off: Bin::Incomparable, settled: false }
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.page.epoch
    }

    pub(crate) fn cohort(&self) -> Option<Arc<str>> {
        self.page.cohort.clone()
    }

    /// From here on, being cut off means this.
    pub(crate) fn when_cut_off(&mut self, bin: Bin) {
        self.cut_off = bin;
    }

    #[inline]
    pub(crate) fn record_latencies(&self, control_ns: u64, candidate_ns: u64) {
        self.page.record_latencies(sketch::Bin::of(control_ns), sketch::Bin::of(candidate_ns));
    }

    /// Counts the call. It stays in flight until this value is dropped, so that what follows from its end
    /// is done before anyone believes it to be over.
    #[inline]
    pub(crate) fn settle(&mut self, bin: Bin) {
        if !std::mem::replace(&mut self.settled, true) {
            self.page.count(bin);
        }
    }
}

impl Drop for Entry {
    #[inline]
    fn drop(&mut self) {
        self.settle(self.cut_off);
    }
}

/// All pages of one candidate.
#[derive(Debug)]
pub(crate) struct Ledger {
    candidate: Arc<str>,
    cohorts_max: usize,
    /// The page of calls without a cohort: nearly all of them.
    front: ArcSwap<Page>,
    /// The epoch of the front page, for calls in line, which hold no page.
    epoch: AtomicU64,
    journals: ThreadLocal<Journal>,
    other: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    /// This epoch's pages by cohort.
    cohorts: BTreeMap<Arc<str>, Arc<Page>>,
    /// Pages of epochs gone by, until their last call has ended and been drained.
    retired: Vec<Arc<Page>>,
    posting: Posting,
}

/// Where a journal's lines are gathered; empty between two.
#[derive(Debug, Default)]
struct Posting {
    control: Gathered,
    candidate: Gathered,
}

impl Ledger {
    pub(crate) fn new(epoch: u64, candidate: Arc<str>, cohorts_max: usize) -> Self {
        let front = ArcSwap::from_pointee(Page::new(epoch, candidate.clone(), None));
        Self {
            candidate,
            cohorts_max,
            front,
            epoch: AtomicU64::new(epoch),
            journals: ThreadLocal::new(),
            other: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn open(&self) -> Entry {
        Entry::new(self.front.load_full())
    }

    /// Opens the account of a call in line that began in `epoch`.
    pub(crate) fn open_in(&self, epoch: u64) -> Entry {
        let front = self.front.load_full();
        Entry::new(if front.epoch == epoch { front } else { self.page_of(&mut self.lock(), epoch) })
    }

    /// Counts a call in line that began in `epoch` and has matched.
    #[inline]
    pub(crate) fn matched_in_line(&self, epoch: u64, control_ns: u64, candidate_ns: u64) {
        let (control, candidate) = (sketch::Bin::of(control_ns), sketch::Bin::of(candidate_ns));
        let journal = self.journals.get_or(|| Journal::new(epoch));
        if !journal.note(epoch, control, candidate) {
            self.matched_beside(journal, epoch, control, candidate);
        }
    }

    /// As [`matched_in_line`](Self::matched_in_line), where the thread's journal is full or of another epoch.
    #[cold]
    fn matched_beside(&self, journal: &Journal, epoch: u64, control: sketch::Bin, candidate: sketch::Bin) {
        // Who reads the counts may hold the lock for long. Callers do not wait for that.
        let pages = match self.other.try_lock() {
            Ok(pages) => Some(pages),
            Err(TryLockError::Poisoned(pages)) => Some(pages.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(mut pages) = pages {
            self.post(journal, &mut pages);
            journal.turn_to(epoch);
        }
        let mut entry = self.open_in(epoch);
        entry.page.record_latencies(control, candidate);
        entry.settle(Bin::Matched);
    }

    /// Counts a call that ends before anything of it has begun.
    #[inline]
    pub(crate) fn refuse(&self, bin: Bin) {
        self.front.load().count(bin);
    }

    /// Moves a call to its cohort's page. Beyond the cap of cohorts it goes to [`COHORT_OTHER`].
    pub(crate) fn assign(&self, entry: &mut Entry, cohort: &str) {
        let epoch = entry.page.epoch;
        let mut other = self.lock();
        let page =
            |cohort: &Arc<str>| Arc::new(Page::new(epoch, self.candidate.clone(), Some(cohort.clone())));
        if self.front.load().epoch == epoch {
            let full = other.cohorts.len() >= self.cohorts_max && !other.cohorts.contains_key(cohort);
            let cohort: Arc<str> = if full { COHORT_OTHER } else { cohort }.into();
            entry.page = other.cohorts.entry(cohort).or_insert_with_key(page).clone();
            return;
        }
        let known = |name: &str| {
            let mut pages = other.retired.iter();
            pages.find(|page| page.epoch == epoch && page.cohort.as_deref() == Some(name)).cloned()
        };
        let kept = known(cohort).or_else(|| known(COHORT_OTHER)).unwrap_or_else(|| {
            // An epoch gone by gets no new cohorts, but for the common one.
            let page = page(&COHORT_OTHER.into());
            other.retired.push(page.clone());
            page
        });
        entry.page = kept;
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Calls that begin from now on count for `epoch`; those under way still count for theirs.
    pub(crate) fn set_epoch(&self, epoch: u64) {
        let mut other = self.lock();
        if self.front.load().epoch == epoch {
            return;
        }
        let last = self.front.swap(Arc::new(Page::new(epoch, self.candidate.clone(), None)));
        let cohorts = std::mem::take(&mut other.cohorts);
        self.epoch.store(epoch, Ordering::Relaxed);
        other.retired.push(last);
        other.retired.extend(cohorts.into_values());
    }

    pub(crate) fn read(&self, experiment: &str) -> Vec<Tally> {
        let mut other = self.lock();
        self.post_all(&mut other);
        self.collect(&other, |page| page.tally(experiment, false))
    }

    pub(crate) fn drain(&self, experiment: &str) -> Vec<Tally> {
        let mut other = self.lock();
        self.post_all(&mut other);
        // Before the counts are taken: a page may be forgotten only if it was quiet already then.
        let mut quiet: Vec<_> = other.retired.iter().map(|page| calls_on(page) == 0).collect();
        let tallies = self.collect(&other, |page| page.tally(experiment, true));
        let mut quiet = quiet.drain(..);
        other.retired.retain(|_| quiet.next() != Some(true));
        tallies
    }

    pub(crate) fn in_flight(&self) -> u64 {
        let other = self.lock();
        let front = self.front.load_full();
        // One for this very reference.
        let on_front = calls_on(&front).saturating_sub(1);
        on_front + other.cohorts.values().chain(&other.retired).map(calls_on).sum::<u64>()
    }

    fn collect(&self, other: &Pages, tally: impl Fn(&Page) -> Tally) -> Vec<Tally> {
        let front = self.front.load_full();
        let pages = std::iter::once(&front).chain(other.cohorts.values()).chain(&other.retired);
        pages.map(|page| tally(page)).filter(|tally| tally.totals.eligible > 0).collect()
    }

    /// The page of an epoch, without a cohort. One that was forgotten, as nobody seemed to count on it any more, is begun
    /// again: what is drained twice adds up.
    fn page_of(&self, other: &mut Pages, epoch: u64) -> Arc<Page> {
        let front = self.front.load_full();
        if front.epoch == epoch {
            return front;
        }
        let known = other.retired.iter().find(|page| page.epoch == epoch && page.cohort.is_none());
        known.cloned().unwrap_or_else(|| {
            let page = Arc::new(Page::new(epoch, self.candidate.clone(), None));
            other.retired.push(page.clone());
            page
        })
    }

    fn post_all(&self, other: &mut Pages) {
        self.journals.iter().for_each(|journal| self.post(journal, other));
    }

    fn post(&self, journal: &Journal, other: &mut Pages) {
        if let Some(epoch) = journal.waiting() {
            let page = self.page_of(other, epoch);
            let Posting { control, candidate } = &mut other.posting;
            let calls = journal.post(|control_bin, candidate_bin| {
                control.add(control_bin);
                candidate.add(candidate_bin);
            });
            control.record_in(&page.control);
            candidate.record_in(&page.candidate_latency);
            page.count_many(Bin::Matched, calls);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.other.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where cohorts beyond the cap are counted together.
pub const COHORT_OTHER: &str = "other";

/// How many calls hold a page, besides the ledger: each call in flight holds a reference, so that counting
/// them costs a call nothing.
fn calls_on(page: &Arc<Page>) -> u64 {
    let references = Arc::strong_count(page) as u64;
    // A reference is given up with release after its call was counted: now those counts are visible.
    fence(Ordering::Acquire);
    references - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than a journal holds.
    const CALLS: u64 = 2_000;

    #[test]
    fn a_call_that_ends_while_the_counts_are_read_waits_for_nobody() {
        let ledger = Ledger::new(1, "candidate".into(), 1);
        let reading = ledger.lock();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..CALLS).for_each(|_| ledger.matched_in_line(1, 100, 200)));
        });
        drop(reading);
        let tallies = ledger.read("experiment");
        assert_eq!(tallies[0].totals.matched, CALLS);
        assert_eq!(
            (tallies[0].control_latency.count(), tallies[0].candidate_latency.count()),
            (CALLS, CALLS)
        );
    }

    #[test]
    fn a_thread_that_has_ended_leaves_its_calls() {
        let ledger = Ledger::new(1, "candidate".into(), 1);
        for _ in 0..3 {
            std::thread::scope(|scope| {
                scope.spawn(|| ledger.matched_in_line(1, 100, 200));
            });
        }
        assert_eq!(ledger.drain("experiment")[0].totals.matched, 3);
        assert!(ledger.drain("experiment").is_empty());
    }

    #[test]
    fn a_call_in_line_that_outlives_its_epochs_page_still_counts_for_it() {
        let ledger = Ledger::new(1, "candidate".into(), 1);
        ledger.matched_in_line(1, 100, 200);
        ledger.set_epoch(2);
        assert_eq!(ledger.drain("experiment").len(), 1);
        assert!(ledger.lock().retired.is_empty(), "nobody holds the page of the first epoch");
        ledger.matched_in_line(2, 100, 200);
        ledger.matched_in_line(1, 100, 200);
        drop(ledger.open_in(1));
        let mut tallies = ledger.drain("experiment");
        tallies.sort_by_key(|tally| tally.epoch);
        let counts: Vec<_> = tallies
            .iter()
            .map(|tally| (tally.epoch, tally.totals.matched, tally.totals.incomparable))
            .collect();
        assert_eq!(counts, [(1, 1, 1), (2, 1, 0)]);
    }
}
