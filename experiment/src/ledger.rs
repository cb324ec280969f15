//! Where calls are counted: one page for each epoch, candidate and cohort, written to without locks.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use crate::{Tally, Totals, sketch::SharedSketch};

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

const BINS: usize = 10;

/// One epoch's counts for one candidate and cohort.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) epoch: u64,
    candidate: Arc<str>,
    cohort: Option<Arc<str>>,
    open: AtomicU64,
    bins: [AtomicU64; BINS],
    control: SharedSketch,
    candidate_latency: SharedSketch,
}

impl Page {
    fn new(epoch: u64, candidate: Arc<str>, cohort: Option<Arc<str>>) -> Self {
        Self {
            epoch,
            candidate,
            cohort,
            open: AtomicU64::new(0),
            bins: Default::default(),
            control: SharedSketch::new(),
            candidate_latency: SharedSketch::new(),
        }
    }

    pub(crate) fn count(&self, bin: Bin) {
        self.bins[bin as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A pair of latencies is recorded for the same calls on both sides, or the percentiles would not be
    /// of the same population.
    pub(crate) fn record_latencies(&self, control_ns: u64, candidate_ns: u64) {
        self.control.record(control_ns);
        self.candidate_latency.record(candidate_ns);
    }

    fn tally(&self, experiment: &str, take: bool) -> Tally {
        let value = |bin: Bin| match &self.bins[bin as usize] {
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
/// or the process went away.
#[derive(Debug)]
pub(crate) struct Entry {
    page: Arc<Page>,
    cut_off: Bin,
    settled: bool,
}

impl Entry {
    fn open(page: Arc<Page>) -> Self {
        page.open.fetch_add(1, Ordering::Relaxed);
        Self { page, cut_off: Bin::Incomparable, settled: false }
    }

    pub(crate) fn page(&self) -> &Page {
        &self.page
    }

    /// From here on, being cut off means this.
    pub(crate) fn when_cut_off(&mut self, bin: Bin) {
        self.cut_off = bin;
    }

    pub(crate) fn settle(mut self, bin: Bin) {
        self.settled = true;
        self.page.count(bin);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.settled {
            self.page.count(self.cut_off);
        }
        // Last, with release: whoever sees no open calls (with acquire) sees all their counts.
        self.page.open.fetch_sub(1, Ordering::Release);
    }
}

/// All pages of an experiment.
#[derive(Debug)]
pub(crate) struct Ledger {
    candidate: Arc<str>,
    /// The page of calls without a cohort and with the only candidate: nearly all of them.
    front: ArcSwap<Page>,
    other: Mutex<Pages>,
}

/// A candidate's name and a cohort's.
type PageName = (Arc<str>, Option<Arc<str>>);

#[derive(Debug, Default)]
struct Pages {
    /// This epoch's pages of named candidates and cohorts.
    current: HashMap<PageName, Arc<Page>>,
    /// Pages of epochs gone by, until their last call has ended and been drained.
    retired: Vec<Arc<Page>>,
}

impl Ledger {
    pub(crate) fn new(epoch: u64, candidate: Arc<str>) -> Self {
        let front = ArcSwap::from_pointee(Page::new(epoch, candidate.clone(), None));
        Self { candidate, front, other: Mutex::default() }
    }

    pub(crate) fn open(&self) -> Entry {
        Entry::open(self.front.load_full())
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.front.load().epoch
    }

    /// Calls that begin from now on count for `epoch`; those under way still count for theirs.
    pub(crate) fn set_epoch(&self, epoch: u64) {
        let mut other = self.lock();
        if self.front.load().epoch == epoch {
            return;
        }
        let next = Page::new(epoch, self.candidate.clone(), None);
        let last = self.front.swap(Arc::new(next));
        let named: Vec<_> = other.current.drain().map(|(_, page)| page).collect();
        other.retired.push(last);
        other.retired.extend(named);
    }

    pub(crate) fn read(&self, experiment: &str) -> Vec<Tally> {
        let other = self.lock();
        self.pages(&other)
            .map(|page| page.tally(experiment, false))
            .filter(|tally| tally.totals.eligible > 0)
            .collect()
    }

    pub(crate) fn drain(&self, experiment: &str) -> Vec<Tally> {
        let mut other = self.lock();
        // A page may be forgotten only if it was already quiet before its counts were taken.
        let quiet: Vec<_> = other
            .retired
            .iter()
            .map(|page| page.open.load(Ordering::Acquire) == 0 && Arc::strong_count(page) == 1)
            .collect();
        let tallies = self
            .pages(&other)
            .map(|page| page.tally(experiment, true))
            .filter(|tally| tally.totals.eligible > 0)
            .collect();
        let mut quiet = quiet.into_iter();
        other.retired.retain(|_| !quiet.next().unwrap_or(false));
        tallies
    }

    pub(crate) fn in_flight(&self) -> u64 {
        let other = self.lock();
        self.pages(&other).map(|page| page.open.load(Ordering::Relaxed)).sum()
    }

    fn pages(&self, other: &Pages) -> impl Iterator<Item = Arc<Page>> {
        let mut pages = vec![self.front.load_full()];
        pages.extend(other.current.values().cloned());
        pages.extend(other.retired.iter().cloned());
        pages.into_iter()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pages> {
        self.other.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
