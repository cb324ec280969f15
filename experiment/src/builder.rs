//! Builds experiments.

use std::{
    fmt::Display,
    marker::PhantomData,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    BreakerPolicy, Comparison, Diff, Differences, Error, ErrorSummary, Experiment, FieldDiff, Limits,
    Observation, Order, Part, Place, Publisher, RecheckPolicy, Reveal, Sampling, Seed, Seen, Start, View,
    Whole,
    clock::{Clock, FixedDurations},
    diff::diff_serialized,
    experiment::Inner,
    hooks::{Hooks, Unary},
    limits::{Budget, Slots},
    noise::NoiseCounts,
    roster::Roster,
    sample::Switch,
};

/// Configures an [`Experiment`]. It starts switched off; see [`sampling`](Self::sampling).
#[must_use]
pub struct Builder<V: 'static, E, L: View<V> = Whole> {
    name: Arc<str>,
    candidate: Arc<str>,
    seed: Seed,
    sampling: Sampling,
    epoch: u64,
    lens: L,
    hooks: Hooks<L::Observed>,
    describe_error: Unary<E, ErrorSummary>,
    describes_errors: bool,
    run_if: Option<Unary<[u8], bool>>,
    before_run: Option<Unary<[u8], ()>>,
    after_run: Option<Unary<Observation, ()>>,
    show_key: Option<fn(&[u8]) -> String>,
    context: Value,
    start: Start,
    order: Order,
    limits: Limits,
    in_line_timeout: Option<Duration>,
    breaker: Option<BreakerPolicy>,
    recheck: RecheckPolicy,
    noise_ppm: u32,
    cohorts_max: usize,
    measures_cpu: bool,
    fixed: Option<FixedDurations>,
    raises: bool,
    runtime: Option<Place>,
    publishers: Vec<Box<dyn Publisher>>,
}

/// Enough for plans or regions; each costs 36 KiB for its sketches.
const COHORTS_MAX: usize = 32;

impl<V: Send + 'static, E: Display + 'static> Experiment<V, E> {
    /// An experiment that compares values with `==`.
    pub fn builder(name: impl Into<Arc<str>>) -> Builder<V, E>
    where
        V: PartialEq,
    {
        Builder::new(name.into(), Whole, |old, new| (old == new).into())
    }

    /// An experiment that compares values by their fields: see [`Diff`](trait@Diff), and
    /// [`Builder::diff_fields`].
    pub fn by_fields(name: impl Into<Arc<str>>) -> Builder<V, E>
    where
        V: Diff,
    {
        Self::comparing(name, Differences::same::<V>).diff_fields()
    }

    /// An experiment that compares values with `compare`: for values that are not `PartialEq`, or where
    /// equality means something else. `compare` says `true` for a match, or gives a [`Comparison`].
    pub fn comparing<C: Into<Comparison>>(
        name: impl Into<Arc<str>>,
        compare: impl Fn(&V, &V) -> C + Send + Sync + 'static,
    ) -> Builder<V, E> {
        Builder::new(name.into(), Whole, move |old, new| compare(old, new).into())
    }
}

impl<V: 'static, E: Display + 'static, O: PartialEq + Send + 'static> Experiment<V, E, Part<V, O>> {
    /// An experiment that compares what `project` makes of the values: for values that are not `Clone`, or
    /// of which a part is enough.
    pub fn projecting(
        name: impl Into<Arc<str>>,
        project: impl Fn(&V) -> O + Send + Sync + 'static,
    ) -> Builder<V, E, Part<V, O>> {
        Builder::new(name.into(), Part(Arc::new(project)), |old, new| (old == new).into())
    }
}

impl<V: 'static, E: Display + 'static, L: View<V>> Builder<V, E, L> {
    fn new(
        name: Arc<str>,
        lens: L,
        compare: impl Fn(&L::Observed, &L::Observed) -> Comparison + Send + Sync + 'static,
    ) -> Self {
        Self {
            seed: Seed::new(&name),
            name,
            candidate: "candidate".into(),
            sampling: Sampling::Never,
            epoch: 0,
            lens,
            hooks: Hooks::new(Box::new(compare)),
            describe_error: Box::new(|error| {
                ErrorSummary::new(std::any::type_name::<E>(), error.to_string())
            }),
            describes_errors: false,
            run_if: None,
            before_run: None,
            after_run: None,
            show_key: None,
            context: Value::Null,
            start: Start::default(),
            order: Order::default(),
            limits: Limits::default(),
            in_line_timeout: None,
            breaker: Some(BreakerPolicy::default()),
            recheck: RecheckPolicy::default(),
            noise_ppm: 0,
            cohorts_max: COHORTS_MAX,
            measures_cpu: false,
            fixed: None,
            raises: false,
            runtime: None,
            publishers: Vec::new(),
        }
    }
}

impl<V: 'static, E: 'static, L: View<V>> Builder<V, E, L> {
    /// The share of calls to look at from the start. Default [`Sampling::Never`].
    pub fn sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// The seed of sampling by key, where it is not the experiment's name: the name of a migration, so that
    /// its ramps and its experiments choose the same keys.
    pub fn seed(mut self, seed: &str) -> Self {
        self.seed = Seed::new(seed);
        self
    }

    /// The epoch that the first calls count for. Default 0.
    pub fn epoch(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        self
    }

    /// The candidate's name in reports. Default `candidate`.
    pub fn candidate_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.candidate = name.into();
        self
    }

    /// Compares the observed values otherwise than the constructor said.
    pub fn compare<C: Into<Comparison>>(
        mut self,
        compare: impl Fn(&L::Observed, &L::Observed) -> C + Send + Sync + 'static,
    ) -> Self {
        self.hooks.compare = Box::new(move |old, new| compare(old, new).into());
        self
    }

    /// Compares errors where both sides failed. By default kind and message must be equal.
    pub fn compare_errors(
        mut self,
        compare: impl Fn(&ErrorSummary, &ErrorSummary) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.hooks.compare_errors = Box::new(compare);
        self
    }

    /// What is kept of an error, and published. By default the type's name and its `Display`; that text is
    /// compared, but published only with [`Reveal::Values`], for it may hold values.
    pub fn describe_errors(mut self, describe: impl Fn(&E) -> ErrorSummary + Send + Sync + 'static) -> Self {
        self.describe_error = Box::new(describe);
        self.describes_errors = true;
        self
    }

    /// Ignores differences of values for which `rule` says `true`. May be given several times; one is enough.
    pub fn ignore(
        mut self,
        rule: impl Fn(&L::Observed, &L::Observed) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.hooks.ignore.push(Box::new(rule));
        self
    }

    /// As [`ignore`](Self::ignore), of differences that may involve errors.
    pub fn ignore_outcomes(
        mut self,
        rule: impl Fn(Seen<'_, L::Observed>, Seen<'_, L::Observed>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.hooks.ignore_outcomes.push(Box::new(rule));
        self
    }

    /// Prepares values for publication. Without it no value is published: this is where you decide what
    /// may be seen.
    pub fn clean(mut self, clean: impl Fn(&L::Observed) -> Value + Send + Sync + 'static) -> Self {
        self.hooks.clean = Some(Box::new(clean));
        self
    }

    /// Tells the differing fields of a mismatch.
    pub fn diff(
        mut self,
        diff: impl Fn(&L::Observed, &L::Observed, Reveal) -> Vec<FieldDiff> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.diff = Some(Box::new(diff));
        self
    }

    /// Tells the differing fields of a mismatch by serialising both values.
    pub fn diff_serialized(self) -> Self
    where
        L::Observed: Serialize,
    {
        self.diff(diff_serialized)
    }

    /// Compares values by their [`Diff`], and tells their differing fields by it: one notion of the same, with
    /// its tolerances and without what is ignored.
    pub fn diff_fields(self) -> Self
    where
        L::Observed: Diff,
    {
        self.compare(Differences::same::<L::Observed>).diff(|old, new, reveal| {
            let mut differences = Differences::new(reveal);
            old.diff(new, &mut differences);
            differences.into_found()
        })
    }

    /// Whether differences carry the values, and errors their text. Default [`Reveal::Paths`].
    pub fn reveal(mut self, reveal: Reveal) -> Self {
        self.hooks.reveal = reveal;
        self
    }

    /// A fingerprint that changes whenever control's value does (a version column, an update time): tells a
    /// recheck whether control moved while the candidate was read.
    pub fn version(mut self, version: impl Fn(&L::Observed) -> u64 + Send + Sync + 'static) -> Self {
        self.hooks.version = Some(Box::new(version));
        self
    }

    /// Which sampled calls take part, by key. A call that does not is counted as skipped.
    pub fn run_if(mut self, run_if: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        self.run_if = Some(Box::new(run_if));
        self
    }

    /// Runs on the caller's path before control, for sampled calls that take part. If it panics the candidate
    /// is not run, and the call is incomparable.
    pub fn before_run(mut self, before_run: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        self.before_run = Some(Box::new(before_run));
        self
    }

    /// Runs with each observation, when publishers have had it; off the caller's path unless the call is in
    /// line.
    pub fn after_run(mut self, after_run: impl Fn(&Observation) + Send + Sync + 'static) -> Self {
        self.after_run = Some(Box::new(after_run));
        self
    }

    /// Counts calls by cohort, named by key and control's value: a plan, a region, a size. Each cohort is judged
    /// by itself, so that many that agree do not hide a few that do not. Calls whose control gave no value
    /// have none.
    pub fn cohort(mut self, cohort: impl Fn(&[u8], &L::Observed) -> String + Send + Sync + 'static) -> Self {
        self.hooks.cohort = Some(Box::new(cohort));
        self
    }

    /// How many cohorts there may be at an epoch; further ones are counted together as
    /// [`COHORT_OTHER`](crate::COHORT_OTHER). Default 32.
    pub fn cohorts_max(mut self, max: usize) -> Self {
        self.cohorts_max = max;
        self
    }

    /// Reads control twice for this share of the calls of [`Experiment::run_rechecked`], in parts per million,
    /// and counts how often it differs from itself; see [`Experiment::noise`]. Default 0.
    pub fn noise_baseline(mut self, ppm: u32) -> Self {
        self.noise_ppm = ppm;
        self
    }

    /// Measures the processor time of both sides; costs two system calls for each poll. Default off.
    pub fn measure_cpu(mut self) -> Self {
        self.measures_cpu = true;
        self
    }

    /// For tests: what the sides are said to have taken, so that reports can be compared.
    pub fn fixed_durations(mut self, control: Duration, candidate: Duration) -> Self {
        self.fixed = Some(FixedDurations { control, candidate });
        self
    }

    /// For tests: a mismatch panics in the caller, who waits for the candidates then. Calls of [`Experiment::run_sync`] and
    /// [`Experiment::trial_sync`] cannot wait; use [`Experiment::run_sync_in_line`] and [`Experiment::trial_sync_in_line`]
    /// there.
    pub fn raise_on_mismatch(mut self) -> Self {
        self.raises = true;
        self
    }

    /// Puts keys into observations, as `show` writes them. Default: the bucket alone.
    pub fn show_keys(mut self, show: fn(&[u8]) -> String) -> Self {
        self.show_key = Some(show);
        self
    }

    /// What each observation carries: build, host, anything that helps to read it.
    pub fn context(mut self, context: Value) -> Self {
        self.context = context;
        self
    }

    /// When a candidate off the caller's path starts. Default [`Start::AfterControl`]. Sync ones always start when control has
    /// ended.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// The order of the in-line methods. Default [`Order::ControlFirst`].
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// How long the caller may wait for each candidate in line. Async ones are dropped then, which needs a Tokio
    /// runtime with timers: where there is none, the candidate is shed. Sync ones cannot be stopped: one that
    /// took longer is counted as timed out. Default: no bound.
    pub fn in_line_timeout(mut self, timeout: Duration) -> Self {
        self.in_line_timeout = Some(timeout);
        self
    }

    /// Bounds on candidates off the caller's path.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// When to rest a failing candidate; `None`: never. Default [`BreakerPolicy::default`].
    pub fn breaker(mut self, policy: impl Into<Option<BreakerPolicy>>) -> Self {
        self.breaker = policy.into();
        self
    }

    /// How [`Experiment::run_rechecked`] reads again.
    pub fn recheck(mut self, policy: RecheckPolicy) -> Self {
        self.recheck = policy;
        self
    }

    /// Runs candidates on this runtime rather than on the caller's: a [`CandidateRuntime`](crate::CandidateRuntime)'s
    /// handle, for candidates that block their thread or compute, or a Tokio runtime's.
    pub fn runtime(mut self, place: impl Into<Place>) -> Self {
        self.runtime = Some(place.into());
        self
    }

    /// Adds a publisher. May be given several times; each gets every observation that it wants.
    pub fn publisher(mut self, publisher: impl Publisher) -> Self {
        self.publishers.push(Box::new(publisher));
        self
    }

    /// Builds the experiment.
    ///
    /// # Errors
    /// [`Error::Limit`] where a limit is zero: a switch is what [`Sampling::Never`] is for.
    pub fn build(self) -> Result<Experiment<V, E, L>, Error> {
        let zero = [
            ("timeout", self.limits.timeout.is_zero()),
            ("in_line_timeout", self.in_line_timeout.is_some_and(|timeout| timeout.is_zero())),
            ("in_flight_max", self.limits.in_flight_max == 0),
            ("budget_per_second", self.limits.budget_per_second == Some(0)),
            ("recheck.rounds", self.recheck.rounds == 0),
            ("breaker.failures", self.breaker.is_some_and(|policy| policy.failures == 0)),
        ];
        if let Some(&(limit, _)) = zero.iter().find(|(_, zero)| *zero) {
            return Err(Error::Limit { experiment: self.name.to_string(), limit });
        }
        let inner = Inner {
            roster: Roster::new(self.candidate, self.epoch, self.cohorts_max, self.breaker),
            slots: Slots::new(self.limits.in_flight_max),
            recheck_slots: Slots::new(self.limits.rechecks_max),
            budget: Budget::new(self.limits.budget_per_second),
            clock: Clock::started(),
            name: self.name,
            seed: self.seed,
            switch: Switch::new(self.sampling),
            forced: Mutex::new(None),
            lens: self.lens,
            shows_errors: self.describes_errors || self.raises || self.hooks.reveal == Reveal::Values,
            hooks: self.hooks,
            describe_error: self.describe_error,
            run_if: self.run_if,
            before_run: self.before_run,
            after_run: self.after_run,
            show_key: self.show_key,
            context: Arc::new(self.context),
            start: self.start,
            order: self.order,
            limits: self.limits,
            in_line_timeout: self.in_line_timeout,
            recheck: self.recheck,
            noise_ppm: self.noise_ppm,
            noise: NoiseCounts::default(),
            measures_cpu: self.measures_cpu,
            fixed: self.fixed,
            raises: self.raises,
            runtime: self.runtime,
            closed: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            publishers: self.publishers,
            publish_failures: AtomicU64::new(0),
            types: PhantomData,
        };
        Ok(Experiment { inner: Arc::new(inner) })
    }
}
