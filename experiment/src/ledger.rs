//! Where calls are counted: one page for each epoch and cohort of a candidate, written to without locks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering, fence},
    },
};

use arc_swap::{ArcSwap, Guard};

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
        self.counter(bin).fetch_add(1, Ordering::Relaxed);
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
    pub(crate) fn record_latencies(&self, control_ns: u64, candidate_ns: u64) {
        self.control.record(control_ns);
        self.candidate_latency.record(candidate_ns);
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
/// or the process went away.
#[derive(Debug)]
pub(crate) struct Entry {
    page: Held,
    cut_off: Bin,
    settled: bool,
}

/// How an entry keeps its page.
#[derive(Debug)]
enum Held {
    /// By a reference count: such calls are in flight for all to see.
    Counted(Arc<Page>),
    /// At half the cost, for calls in line: nobody waits for those. Once the page is retired it is
    /// counted too, by `ArcSwap`'s doing.
    Pinned(Guard<Arc<Page>>),
}

impl std::ops::Deref for Held {
    type Target = Page;

    #[inline]
    fn deref(&self) -> &Page {
        match self {
            Self::Counted(page) => page,
            Self::Pinned(page) => page,
        }
    }
}

impl Entry {
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
        self.page.record_latencies(control_ns, candidate_ns);
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
    other: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    /// This epoch's pages by cohort.
    cohorts: BTreeMap<Arc<str>, Arc<Page>>,
    /// Pages of epochs gone by, until their last call has ended and been drained.
    retired: Vec<Arc<Page>>,
}

impl Ledger {
    pub(crate) fn new(epoch: u64, candidate: Arc<str>, cohorts_max: usize) -> Self {
        let front = ArcSwap::from_pointee(Page::new(epoch, candidate.clone(), None));
        Self { candidate, cohorts_max, front, other: Mutex::default() }
    }

    #[inline]
    pub(crate) fn open(&self) -> Entry {
        let page = Held::Counted(self.front.load_full());
        Entry { page, cut_off: Bin::Incomparable, settled: false }
    }

    #[inline]
    pub(crate) fn open_in_line(&self) -> Entry {
        let page = Held::Pinned(self.front.load());
        Entry { page, cut_off: Bin::Incomparable, settled: false }
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
            entry.page = Held::Counted(other.cohorts.entry(cohort).or_insert_with_key(page).clone());
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
        entry.page = Held::Counted(kept);
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
        let last = self.front.swap(Arc::new(Page::new(epoch, self.candidate.clone(), None)));
        let cohorts = std::mem::take(&mut other.cohorts);
        other.retired.push(last);
        other.retired.extend(cohorts.into_values());
    }

    pub(crate) fn read(&self, experiment: &str) -> Vec<Tally> {
        let other = self.lock();
        self.collect(&other, |page| page.tally(experiment, false))
    }

    pub(crate) fn drain(&self, experiment: &str) -> Vec<Tally> {
        let mut other = self.lock();
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
