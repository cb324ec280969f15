//! The experiment: built once, shared, asked on every call.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::Value;

use crate::{
    ErrorSummary, Hook, HookFailure, Limits, Observation, Publisher, RecheckPolicy, Sampling, Tally, Verdict,
    View, Whole,
    breaker::{Breaker, Pass},
    clock::Clock,
    hooks::{Hooks, Unary, guard},
    ledger::{Bin, Entry, Ledger},
    limits::{Budget, Slots},
    sample::{Draw, Seed, Switch},
};

/// Runs a control and a candidate, gives the caller what control gave, and tells how the two compare.
///
/// Cloning is one reference count. `V` is the value of both sides and `E` their error; `L` is what of the
/// value is compared: [`Whole`] or [`Part`](crate::Part).
pub struct Experiment<V, E, L: View<V> = Whole>
where
    V: 'static,
{
    pub(crate) inner: Arc<Inner<V, E, L>>,
}

pub(crate) struct Inner<V, E, L: View<V>>
where
    V: 'static,
{
    pub(crate) name: Arc<str>,
    pub(crate) candidate: Arc<str>,
    pub(crate) seed: Seed,
    pub(crate) switch: Switch,
    pub(crate) lens: L,
    pub(crate) hooks: Hooks<L::Observed>,
    pub(crate) describe_error: Unary<E, ErrorSummary>,
    pub(crate) run_if: Option<Unary<[u8], bool>>,
    pub(crate) show_key: Option<fn(&[u8]) -> String>,
    pub(crate) context: Arc<Value>,
    pub(crate) start: Start,
    pub(crate) order: Order,
    pub(crate) limits: Limits,
    pub(crate) recheck: RecheckPolicy,
    pub(crate) runtime: Option<tokio::runtime::Handle>,
    pub(crate) publishers: Vec<Box<dyn Publisher>>,
    pub(crate) clock: Clock,
    pub(crate) ledger: Ledger,
    pub(crate) slots: Slots,
    pub(crate) recheck_slots: Slots,
    pub(crate) budget: Budget,
    pub(crate) breaker: Breaker,
    pub(crate) publish_failures: AtomicU64,
    pub(crate) types: PhantomData<fn(V, E)>,
}

/// When a candidate off the caller's path starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// When control has ended: it never competes with its own control, and a control that failed for good
    /// still is compared.
    #[default]
    AfterControl,
    /// Together with control: both read as close to each other as can be.
    WithControl,
}

/// In which order the sides run in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Control, then the candidate.
    #[default]
    ControlFirst,
    /// One after the other, in an order drawn for each call: neither profits from a warm cache.
    Random,
    /// Both at once, on the caller's task.
    Concurrent,
}

/// What is to be done with one call.
pub(crate) enum Admission<V, E, L: View<V>>
where
    V: 'static,
{
    Bare,
    ForcedCandidate,
    Sampled(Call<V, E, L>),
}

/// One sampled call on its way: everything that its end needs.
pub(crate) struct Call<V, E, L: View<V>>
where
    V: 'static,
{
    pub(crate) inner: Arc<Inner<V, E, L>>,
    pub(crate) entry: Entry,
    pub(crate) pass: Pass,
    pub(crate) subject: Subject,
    pub(crate) failures: Vec<HookFailure>,
    pub(crate) slot: Option<Slot<V, E, L>>,
}

/// Whom a call is about, as far as reports may tell.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) bucket: u32,
    pub(crate) key: Option<Arc<str>>,
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
    /// The experiment's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The share of calls that it looks at now.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        self.inner.switch.get()
    }

    /// Changes the share, for calls that begin from now on. It also ends a forced branch.
    pub fn set_sampling(&self, sampling: Sampling) {
        self.inner.switch.set(sampling);
    }

    /// Sends every call to the candidate alone, until [`set_sampling`](Self::set_sampling): to try it by
    /// hand, on a machine where that hurts nobody. Nothing is compared or counted meanwhile, and a
    /// candidate's error or panic *is* what the caller gets.
    pub fn force_candidate(&self) {
        self.inner.switch.force_candidate();
    }

    /// The epoch that calls are counted for.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.inner.ledger.epoch()
    }

    /// Calls that begin from now on count for `epoch`; those under way still count for theirs.
    pub fn set_epoch(&self, epoch: u64) {
        self.inner.ledger.set_epoch(epoch);
    }

    /// Counts and latencies since they were last drained, one tally for each epoch that has any.
    #[must_use]
    pub fn tallies(&self) -> Vec<Tally> {
        self.inner.ledger.read(&self.inner.name)
    }

    /// Takes the counts and latencies out: each call is handed out in exactly one drain. Add them to a
    /// store that outlives the process.
    #[must_use]
    pub fn drain(&self) -> Vec<Tally> {
        self.inner.ledger.drain(&self.inner.name)
    }

    /// Eligible calls that have not ended yet.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.inner.ledger.in_flight()
    }

    /// Publishers that panicked, in calls.
    #[must_use]
    pub fn publish_failures(&self) -> u64 {
        self.inner.publish_failures.load(Ordering::Relaxed)
    }

    /// Decides about one call. Its first lines are all that an unsampled call ever runs.
    #[inline]
    pub(crate) fn admit(&self, key: &[u8], off_path: bool) -> Admission<V, E, L> {
        match self.inner.switch.draw(self.inner.seed, key) {
            Draw::Bare => Admission::Bare,
            Draw::ForcedCandidate => Admission::ForcedCandidate,
            Draw::Sampled => match self.enter(key, off_path) {
                Some(call) => Admission::Sampled(call),
                None => Admission::Bare,
            },
        }
    }

    /// Opens the account of a sampled call, or settles it at once if it is not to run.
    fn enter(&self, key: &[u8], off_path: bool) -> Option<Call<V, E, L>> {
        let inner = &self.inner;
        let entry = inner.ledger.open();
        let mut failures = Vec::new();
        if let Some(run_if) = &inner.run_if {
            match guard(Hook::RunIf, &mut failures, || run_if(key)) {
                Some(true) => {}
                Some(false) => {
                    entry.settle(Bin::Skipped);
                    return None;
                }
                None => {
                    entry.settle(Bin::Incomparable);
                    return None;
                }
            }
        }
        let now = || inner.clock.now_ns();
        // The slot first: a probe or a start of the budget must not be spent on a call that is shed.
        if off_path && !inner.slots.take() {
            entry.settle(Bin::Shed);
            return None;
        }
        let slot = off_path.then(|| Slot(inner.clone()));
        let pass = if inner.budget.take(now) { inner.breaker.pass(now) } else { Pass::Open };
        if pass == Pass::Open {
            entry.settle(Bin::Shed);
            return None;
        }
        let subject = Subject {
            bucket: inner.seed.bucket(key).ppm(),
            key: inner.show_key.map(|show| show(key).into()),
        };
        Some(Call { inner: inner.clone(), entry, pass, subject, failures, slot })
    }
}

impl<V, E, L: View<V>> Inner<V, E, L> {
    /// Hands an observation to the publishers that want it; it is built only if there is one.
    pub(crate) fn publish(&self, verdict: &Verdict, build: impl FnOnce() -> Observation) {
        let mut failures = Vec::new();
        let wanted = |publisher: &dyn Publisher, failures: &mut Vec<HookFailure>| {
            guard(Hook::Publish, failures, || publisher.wants(verdict)).unwrap_or(false)
        };
        if self.publishers.iter().any(|publisher| wanted(&**publisher, &mut failures)) {
            let observation = build();
            for publisher in &self.publishers {
                guard(Hook::Publish, &mut failures, || {
                    if publisher.wants(verdict) {
                        publisher.publish(&observation);
                    }
                });
            }
        }
        if !failures.is_empty() {
            self.publish_failures.fetch_add(failures.len() as u64, Ordering::Relaxed);
        }
    }
}

impl<V, E, L: View<V>> Clone for Experiment<V, E, L> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<V, E, L: View<V>> fmt::Debug for Experiment<V, E, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Experiment")
            .field("name", &self.inner.name)
            .field("sampling", &self.sampling())
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}

/// A future that is boxed because it is called again, seldom.
pub(crate) type Reading<V, E> = std::pin::Pin<Box<dyn Future<Output = Result<V, E>> + Send>>;
