//! The experiment: built once, shared, asked on every call.

use std::{
    fmt,
    marker::PhantomData,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::sync::watch;

use crate::{
    ErrorSummary, Hook, HookFailure, Limits, Observation, Place, Publisher, RecheckPolicy, Sampling, Tally,
    Verdict, View, Whole,
    clock::{Clock, FixedDurations},
    hooks::{Hooks, Unary, guard},
    limits::{Budget, Slots},
    noise::NoiseCounts,
    roster::Roster,
    sample::{Seed, Switch},
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
    pub(crate) seed: Seed,
    pub(crate) switch: Switch,
    /// The candidate that is forced by name. A lock, for it is read only while one is.
    pub(crate) forced: Mutex<Option<Arc<str>>>,
    pub(crate) lens: L,
    pub(crate) hooks: Hooks<L::Observed>,
    pub(crate) describe_error: Unary<E, ErrorSummary>,
    /// Whether an error's message may be published.
    pub(crate) shows_errors: bool,
    pub(crate) run_if: Option<Unary<[u8], bool>>,
    pub(crate) before_run: Option<Unary<[u8], ()>>,
    pub(crate) after_run: Option<Unary<Observation, ()>>,
    pub(crate) show_key: Option<fn(&[u8]) -> String>,
    pub(crate) context: Arc<Value>,
    pub(crate) start: Start,
    pub(crate) order: Order,
    pub(crate) limits: Limits,
    pub(crate) in_line_timeout: Option<Duration>,
    pub(crate) recheck: RecheckPolicy,
    pub(crate) noise_ppm: u32,
    pub(crate) runtime: Option<Place>,
    pub(crate) publishers: Vec<Box<dyn Publisher>>,
    pub(crate) measures_cpu: bool,
    pub(crate) fixed: Option<FixedDurations>,
    pub(crate) raises: bool,
    pub(crate) clock: Clock,
    pub(crate) roster: Roster,
    pub(crate) slots: Slots,
    pub(crate) recheck_slots: Slots,
    pub(crate) budget: Budget,
    pub(crate) noise: NoiseCounts,
    pub(crate) publish_failures: AtomicU64,
    pub(crate) closed: AtomicBool,
    /// True once candidates are to stop. Each of their tasks holds a receiver until it has ended.
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) types: PhantomData<fn(V, E)>,
}

/// When a candidate off the caller's path starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// When control has ended: it never competes with its own control, and is spared where control panics.
    #[default]
    AfterControl,
    /// Together with control: both read as close to each other as can be. On a
    /// [`CandidateRuntime`](crate::CandidateRuntime) it costs the caller's runtime a system call to wake a thread.
    WithControl,
}

/// In which order the sides run in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Control, then the candidate.
    #[default]
    ControlFirst,
    /// One after the other, in an order drawn for each call: neither always profits from a warm cache.
    Random,
    /// Both at once, on the caller's task.
    Concurrent,
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
    /// candidate's error or panic *is* what the caller gets. Where a call has several candidates, it is the
    /// first. A [`Choice`](crate::Choice) names its branch itself, and only that one runs.
    pub fn force_candidate(&self) {
        self.inner.switch.force_candidate();
    }

    /// As [`force_candidate`](Self::force_candidate), of the candidate of this name. Calls that have none of that name run
    /// control alone.
    pub fn force(&self, name: &str) {
        *self.inner.forced.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.into());
        self.inner.switch.force_name();
    }

    /// The epoch that calls are counted for.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.inner.roster.only.ledger.epoch()
    }

    /// Calls that begin from now on count for `epoch`; those under way still count for theirs.
    pub fn set_epoch(&self, epoch: u64) {
        self.inner.roster.set_epoch(epoch);
    }

    /// Counts and latencies since they were last drained: a tally for each candidate, cohort and epoch that
    /// has any.
    #[must_use]
    pub fn tallies(&self) -> Vec<Tally> {
        self.inner.roster.read(&self.inner.name)
    }

    /// Takes the counts and latencies out: each call is handed out in exactly one drain. Add them to a
    /// store that outlives the process.
    #[must_use]
    pub fn drain(&self) -> Vec<Tally> {
        self.inner.roster.drain(&self.inner.name)
    }

    /// Eligible calls off the caller's path, of all candidates, that have not ended yet.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.inner.roster.in_flight()
    }

    /// How often publishers and `after_run` panicked.
    #[must_use]
    pub fn publish_failures(&self) -> u64 {
        self.inner.publish_failures.load(Ordering::Relaxed)
    }
}

impl<V, E, L: View<V>> Inner<V, E, L> {
    pub(crate) fn forced_name(&self) -> Option<Arc<str>> {
        self.forced.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether anybody wants an observation with this verdict: otherwise it is not built.
    #[inline]
    pub(crate) fn is_wanted(&self, verdict: &Verdict) -> bool {
        self.after_run.is_some() || (!self.publishers.is_empty() && self.is_wanted_by_publishers(verdict))
    }

    fn is_wanted_by_publishers(&self, verdict: &Verdict) -> bool {
        self.publishers.iter().any(|publisher| {
            let mut failures = Vec::new();
            let wants = guard(Hook::Publish, &mut failures, || publisher.wants(verdict));
            self.note_publish_failures(&failures);
            wants.unwrap_or(false)
        })
    }

    pub(crate) fn publish(&self, observation: &Observation) {
        let mut failures = Vec::new();
        for publisher in &self.publishers {
            guard(Hook::Publish, &mut failures, || {
                if publisher.wants(&observation.verdict) {
                    publisher.publish(observation);
                }
            });
        }
        if let Some(after_run) = &self.after_run {
            guard(Hook::AfterRun, &mut failures, || after_run(observation));
        }
        self.note_publish_failures(&failures);
    }

    fn note_publish_failures(&self, failures: &[HookFailure]) {
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
