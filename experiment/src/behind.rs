//! Off the caller's path: the caller waits for control alone, the rest goes on behind.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;

use crate::{
    Branch, Capture, ErrorSummary, Experiment, Hook, HookFailure, Incomparable, Mismatch, Observation,
    Outcome, Start, Verdict, View,
    contain::caught,
    experiment::{Admission, Call, Inner, Reading, Subject},
    hooks::{Assessment, Picture, guard, panic_message},
    ledger::Bin,
};

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Experiment<V, E, L> {
    /// Runs `control` and gives back what it gave: its value, error or panic, the moment it ends. If the call
    /// is sampled, `candidate` is built and run off the caller's path, and what it gave is compared.
    ///
    /// Needs a Tokio runtime with timers for sampled calls: the one it is called in, or the one given to
    /// the builder. Where there is none, the candidate is shed.
    ///
    /// # Errors
    /// Control's, unchanged.
    pub async fn run<C, CF, N, NF>(&self, key: impl AsRef<[u8]>, control: C, candidate: N) -> Result<V, E>
    where
        C: FnOnce() -> CF,
        CF: Future<Output = Result<V, E>>,
        N: FnOnce() -> NF + Send + 'static,
        NF: Future<Output = Result<V, E>> + Send + 'static,
    {
        match self.admit(key.as_ref(), true) {
            Admission::Bare => control().await,
            Admission::ForcedCandidate => candidate().await,
            Admission::Sampled(call) => run_behind(call, control, candidate, None).await,
        }
    }

    /// As [`run`](Self::run), for reads that can be read again: a mismatch counts only if it is still there
    /// after the delay of the [`RecheckPolicy`](crate::RecheckPolicy), on fresh reads of both sides.
    ///
    /// # Errors
    /// Control's, unchanged.
    pub async fn run_rechecked<C, CF, N, NF>(
        &self,
        key: impl AsRef<[u8]>,
        control: C,
        candidate: N,
    ) -> Result<V, E>
    where
        C: Fn() -> CF + Send + Sync + 'static,
        CF: Future<Output = Result<V, E>> + Send + 'static,
        N: Fn() -> NF + Send + Sync + 'static,
        NF: Future<Output = Result<V, E>> + Send + 'static,
    {
        match self.admit(key.as_ref(), true) {
            Admission::Bare => control().await,
            Admission::ForcedCandidate => candidate().await,
            Admission::Sampled(call) => {
                let (control, candidate) = (Arc::new(control), Arc::new(candidate));
                let again = Again {
                    control: Box::new({
                        let control = control.clone();
                        move || Box::pin(control())
                    }),
                    candidate: Box::new({
                        let candidate = candidate.clone();
                        move || Box::pin(candidate())
                    }),
                };
                run_behind(call, move || control(), move || candidate(), Some(again)).await
            }
        }
    }
}

/// Both sides, to be read again.
struct Again<V, E> {
    control: Box<dyn Fn() -> Reading<V, E> + Send + Sync>,
    candidate: Box<dyn Fn() -> Reading<V, E> + Send + Sync>,
}

/// One side that has ended.
enum Ended<T> {
    Value(T),
    Error(ErrorSummary),
    Panicked(String),
    TimedOut,
}

/// Control's end, kept for the comparison; the hook's failure if it could not be kept.
struct Kept<O> {
    end: Result<Result<O, ErrorSummary>, HookFailure>,
    wall_ns: u64,
}

enum Control<O> {
    Ended(Kept<O>),
    Running(oneshot::Receiver<Kept<O>>),
}

async fn run_behind<V, E, L, C, CF, N, NF>(
    mut call: Call<V, E, L>,
    control: C,
    candidate: N,
    again: Option<Again<V, E>>,
) -> Result<V, E>
where
    V: Send + 'static,
    E: Send + 'static,
    L: Capture<V>,
    C: FnOnce() -> CF,
    CF: Future<Output = Result<V, E>>,
    N: FnOnce() -> NF + Send + 'static,
    NF: Future<Output = Result<V, E>> + Send + 'static,
{
    let Some(runtime) = call.inner.runtime.clone().or_else(|| tokio::runtime::Handle::try_current().ok())
    else {
        call.entry.settle(Bin::Shed);
        return control().await;
    };
    let inner = call.inner.clone();
    match inner.start {
        Start::AfterControl => {
            let began = inner.clock.now_ns();
            let outcome = control().await;
            let wall_ns = inner.clock.now_ns() - began;
            let kept = inner.keep(&outcome, wall_ns);
            call.entry.when_cut_off(Bin::Shed);
            runtime.spawn(follow(call, Control::Ended(kept), candidate, again));
            outcome
        }
        Start::WithControl => {
            let (send, receive) = oneshot::channel();
            call.entry.when_cut_off(Bin::Shed);
            runtime.spawn(follow(call, Control::Running(receive), candidate, again));
            let began = inner.clock.now_ns();
            let outcome = control().await;
            let wall_ns = inner.clock.now_ns() - began;
            // Refused only where the runtime dropped the candidate's task.
            let _ = send.send(inner.keep(&outcome, wall_ns));
            outcome
        }
    }
}

/// The candidate's task: run, compare, read again, settle, publish.
async fn follow<V, E, L, N, NF>(
    call: Call<V, E, L>,
    control: Control<L::Observed>,
    candidate: N,
    again: Option<Again<V, E>>,
) where
    V: Send + 'static,
    E: Send + 'static,
    L: Capture<V>,
    N: FnOnce() -> NF + Send + 'static,
    NF: Future<Output = Result<V, E>> + Send + 'static,
{
    let Call { inner, entry, pass, subject, mut failures, slot } = call;
    let began = inner.clock.now_ns();
    let ended = contained(candidate, inner.limits.timeout).await;
    let candidate_ns = inner.clock.now_ns() - began;
    let candidate = ended.describe(&inner, &mut failures);
    let kept = match control {
        Control::Ended(kept) => Some(kept),
        Control::Running(receive) => receive.await.ok(),
    };
    drop(slot);

    let control_ns = kept.as_ref().map_or(0, |kept| kept.wall_ns);
    let kept = match kept.map(|kept| kept.end) {
        Some(Ok(kept)) => Some(kept),
        Some(Err(failure)) => {
            failures.push(failure);
            None
        }
        None => None,
    };
    let control_failed = !matches!(kept, Some(Ok(_)));
    match &candidate {
        Ended::Panicked(_) | Ended::TimedOut => inner.breaker.failed(pass, || inner.clock.now_ns()),
        Ended::Error(_) if !control_failed => inner.breaker.failed(pass, || inner.clock.now_ns()),
        _ => inner.breaker.succeeded(pass),
    }

    let first = inner.conclude(kept.as_ref(), &candidate, &mut failures);
    let (verdict, picture) = match (first, again) {
        ((Verdict::Mismatched(_), picture), Some(again)) => {
            inner.read_again(&again, picture, &mut failures).await
        }
        (concluded, _) => concluded,
    };
    if kept.is_some() && matches!(candidate, Ended::Value(_) | Ended::TimedOut) {
        entry.page().record_latencies(control_ns, candidate_ns);
    }
    let epoch = entry.page().epoch;
    entry.settle(verdict.bin());
    inner.publish(&verdict, || {
        let control = Branch {
            outcome: match &kept {
                Some(Ok(_)) => Outcome::Value,
                Some(Err(error)) => Outcome::Error(error.clone()),
                None => Outcome::Cancelled,
            },
            wall: Duration::from_nanos(control_ns),
            cpu: None,
            value: picture.old,
        };
        let candidate = Branch {
            outcome: candidate.outcome(),
            wall: Duration::from_nanos(candidate_ns),
            cpu: None,
            value: picture.new,
        };
        inner.observation(epoch, subject, control, candidate, verdict.clone(), picture.differences, failures)
    });
}

/// Runs a candidate so that neither panic nor delay gets out of it. It is dropped under the net as well.
async fn contained<V, E, N, NF>(candidate: N, timeout: Duration) -> Ended<Result<V, E>>
where
    N: FnOnce() -> NF,
    NF: Future<Output = Result<V, E>>,
{
    match tokio::time::timeout(timeout, caught(candidate)).await {
        Ok(Ok(result)) => Ended::Value(result),
        Ok(Err(panic)) => Ended::Panicked(panic_message(panic)),
        Err(_) => Ended::TimedOut,
    }
}

impl<V, E> Ended<Result<V, E>> {
    fn describe<L: View<V>>(self, inner: &Inner<V, E, L>, failures: &mut Vec<HookFailure>) -> Ended<V> {
        match self {
            Self::Value(Ok(value)) => Ended::Value(value),
            Self::Value(Err(error)) => Ended::Error(inner.summarize(&error, failures)),
            Self::Error(error) => Ended::Error(error),
            Self::Panicked(message) => Ended::Panicked(message),
            Self::TimedOut => Ended::TimedOut,
        }
    }
}

impl<V> Ended<V> {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Value(_) => Outcome::Value,
            Self::Error(error) => Outcome::Error(error.clone()),
            Self::Panicked(message) => Outcome::Panicked(message.clone()),
            Self::TimedOut => Outcome::TimedOut,
        }
    }
}

impl Verdict {
    pub(crate) fn bin(&self) -> Bin {
        match self {
            Self::Matched => Bin::Matched,
            Self::Ignored => Bin::Ignored,
            Self::Transient => Bin::Transient,
            Self::Mismatched(_) => Bin::Mismatched,
            Self::Incomparable(_) => Bin::Incomparable,
            Self::Errored => Bin::Errored,
            Self::Panicked => Bin::Panicked,
            Self::TimedOut => Bin::TimedOut,
        }
    }
}

impl<V, E, L: Capture<V>> Inner<V, E, L> {
    /// Keeps of control's end what the comparison needs, on the caller's path: user code that panics here is
    /// noted.
    fn keep(&self, outcome: &Result<V, E>, wall_ns: u64) -> Kept<L::Observed> {
        let mut failures = Vec::new();
        let end = match outcome {
            Ok(value) => guard(Hook::Capture, &mut failures, || self.lens.capture(value)).map(Ok),
            Err(error) => Some(Err(self.summarize(error, &mut failures))),
        };
        let end = match (end, failures.pop()) {
            (Some(end), None) => Ok(end),
            (_, Some(failure)) => Err(failure),
            (None, None) => Err(HookFailure { hook: Hook::Capture, message: String::new() }),
        };
        Kept { end, wall_ns }
    }
}

impl<V, E, L: View<V>> Inner<V, E, L> {
    pub(crate) fn summarize(&self, error: &E, failures: &mut Vec<HookFailure>) -> ErrorSummary {
        guard(Hook::DescribeErrors, failures, || (self.describe_error)(error))
            .unwrap_or_else(|| ErrorSummary::new("unknown", "describing the error panicked"))
    }

    /// The verdict on two ended sides, and what a report may show of them.
    fn conclude(
        &self,
        control: Option<&Result<L::Observed, ErrorSummary>>,
        candidate: &Ended<V>,
        failures: &mut Vec<HookFailure>,
    ) -> (Verdict, Picture) {
        let nothing = |verdict| (verdict, Picture::default());
        let seen = match candidate {
            Ended::Panicked(_) => return nothing(Verdict::Panicked),
            Ended::TimedOut => return nothing(Verdict::TimedOut),
            Ended::Value(value) => Ok(value),
            Ended::Error(error) => Err(error),
        };
        let Some(control) = control else {
            let why = if failures.is_empty() { Incomparable::Control } else { Incomparable::Hook };
            return nothing(Verdict::Incomparable(why));
        };
        self.look(seen, |new| self.weigh(control.as_ref(), new, failures))
    }

    /// Shows a side that has ended, as comparisons see it.
    pub(crate) fn look<R>(
        &self,
        side: Result<&V, &ErrorSummary>,
        look: impl FnOnce(Result<&L::Observed, &ErrorSummary>) -> R,
    ) -> R {
        match side {
            Ok(value) => self.lens.show(value, |observed| look(Ok(observed))),
            Err(error) => look(Err(error)),
        }
    }

    pub(crate) fn weigh(
        &self,
        old: Result<&L::Observed, &ErrorSummary>,
        new: Result<&L::Observed, &ErrorSummary>,
        failures: &mut Vec<HookFailure>,
    ) -> (Verdict, Picture) {
        let verdict = match self.hooks.assess(old, new, failures) {
            Assessment::Agree => Verdict::Matched,
            Assessment::Ignored => Verdict::Ignored,
            Assessment::Differ => Verdict::Mismatched(Mismatch::Unchecked),
            Assessment::Errored => Verdict::Errored,
            Assessment::Declared => Verdict::Incomparable(Incomparable::Declared),
            Assessment::HookFailed => Verdict::Incomparable(Incomparable::Hook),
        };
        let wanted = self.publishers.iter().any(|publisher| {
            guard(Hook::Publish, &mut Vec::new(), || publisher.wants(&verdict)).unwrap_or(false)
        });
        let picture = match wanted {
            true => self.hooks.picture(old, new, verdict.is_mismatch(), failures),
            false => Picture::default(),
        };
        (verdict, picture)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one value, named once more by its fields")]
    pub(crate) fn observation(
        &self,
        epoch: u64,
        subject: Subject,
        control: Branch,
        candidate: Branch,
        verdict: Verdict,
        differences: Vec<crate::FieldDiff>,
        hook_failures: Vec<HookFailure>,
    ) -> Observation {
        Observation {
            experiment: self.name.clone(),
            candidate_name: self.candidate.clone(),
            epoch,
            at: SystemTime::now(),
            bucket: subject.bucket,
            key: subject.key,
            cohort: None,
            control,
            candidate,
            verdict,
            differences,
            hook_failures,
            context: self.context.clone(),
        }
    }
}

/// Gives a recheck slot back however the recheck ends.
struct RecheckSlot<'a>(&'a crate::limits::Slots);

impl Drop for RecheckSlot<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Inner<V, E, L> {
    async fn read_again(
        &self,
        again: &Again<V, E>,
        first: Picture,
        failures: &mut Vec<HookFailure>,
    ) -> (Verdict, Picture) {
        if !self.recheck_slots.take() {
            return (Verdict::Mismatched(Mismatch::Unchecked), first);
        }
        let _slot = RecheckSlot(&self.recheck_slots);
        let mut standing = (Verdict::Incomparable(Incomparable::Moving), first);
        for round in 0..self.recheck.rounds {
            tokio::time::sleep(self.recheck.wait(round)).await;
            match self.read_round(again, failures).await {
                // An unreadable side may be readable in the next round.
                Round::Unreadable => match standing.0 {
                    Verdict::Mismatched(_) => {}
                    _ => standing.0 = Verdict::Incomparable(Incomparable::Unreadable),
                },
                Round::Moved => {}
                Round::Agree => return (Verdict::Transient, standing.1),
                Round::Differ(picture) => standing = (Verdict::Mismatched(Mismatch::Persistent), picture),
            }
        }
        standing
    }

    /// Control, candidate, control: what stands between two equal reads of control was read of that state.
    async fn read_round(&self, again: &Again<V, E>, failures: &mut Vec<HookFailure>) -> Round {
        let timeout = self.limits.timeout;
        let before = contained(&again.control, timeout).await.describe(self, failures);
        let between = contained(&again.candidate, timeout).await.describe(self, failures);
        let after = contained(&again.control, timeout).await.describe(self, failures);
        let (Some(before), Some(between), Some(after)) = (before.seen(), between.seen(), after.seen()) else {
            return Round::Unreadable;
        };
        if before.is_ok() && after.is_ok() && between.is_err() {
            return Round::Unreadable;
        }
        self.look(before, |before| {
            self.look(between, |between| {
                self.look(after, |after| {
                    let (verdict, picture) = self.weigh(after, between, failures);
                    match verdict {
                        Verdict::Matched | Verdict::Ignored => return Round::Agree,
                        Verdict::Mismatched(_) => {}
                        _ => return Round::Unreadable,
                    }
                    let earlier = self.hooks.assess(before, between, failures);
                    if matches!(earlier, Assessment::Agree | Assessment::Ignored) {
                        Round::Agree
                    } else if self.hooks.unmoved(before, after, failures) {
                        Round::Differ(picture)
                    } else {
                        Round::Moved
                    }
                })
            })
        })
    }
}

enum Round {
    Agree,
    Differ(Picture),
    Moved,
    Unreadable,
}

impl<V> Ended<V> {
    fn seen(&self) -> Option<Result<&V, &ErrorSummary>> {
        match self {
            Self::Value(value) => Some(Ok(value)),
            Self::Error(error) => Some(Err(error)),
            Self::Panicked(_) | Self::TimedOut => None,
        }
    }
}
