//! The candidate's task: run, compare, read again, settle, publish.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::{oneshot, watch};

use crate::{
    Branch, Capture, ErrorSummary, Hook, HookFailure, Incomparable, Outcome, Seen, Verdict, View,
    admit::{Slot, Subject, Ticket},
    contain::caught,
    experiment::Inner,
    hooks::{Picture, guard, panic_message},
    ledger::Bin,
    meter::metered,
    reread::Again,
    roster::Candidate,
    weigh::raised,
};

/// Which candidate ran, for whom, and how to read both sides again.
pub(crate) struct About<'a, V, E> {
    pub(crate) candidate: &'a Candidate,
    pub(crate) subject: &'a Subject,
    pub(crate) again: Option<&'a Again<V, E>>,
}

/// Control's end, as far as the comparison needs it after the value has gone to the caller.
pub(crate) struct Control<O> {
    end: ControlEnd<O>,
    wall_ns: u64,
    cpu: Option<Duration>,
}

enum ControlEnd<O> {
    Kept(Result<O, ErrorSummary>),
    HookFailed(HookFailure),
    /// It panicked, or its caller went away.
    Gone,
}

/// Where a candidate's task gets control's end from.
pub(crate) enum ControlSource<O> {
    Ended(Control<O>),
    Running(oneshot::Receiver<Control<O>>),
}

/// How a candidate ended.
pub(crate) enum Ended<V> {
    Value(V),
    Error(ErrorSummary),
    Panicked(String),
    TimedOut,
    /// The process is shutting down.
    Stopped,
}

/// A candidate that has ended, and what that took.
pub(crate) struct Ran<V> {
    ended: Ended<V>,
    wall_ns: u64,
    cpu: Option<Duration>,
    failures: Vec<HookFailure>,
}

impl<O> ControlSource<O> {
    pub(crate) async fn ended(self) -> Control<O> {
        match self {
            Self::Ended(control) => control,
            Self::Running(receive) => {
                receive.await.unwrap_or(Control { end: ControlEnd::Gone, wall_ns: 0, cpu: None })
            }
        }
    }
}

impl<V, E, L: Capture<V>> Inner<V, E, L> {
    /// Keeps of control's end what the comparison needs. This is on the caller's path: user code that panics
    /// here is noted.
    pub(crate) fn keep(
        &self,
        outcome: &Result<V, E>,
        wall_ns: u64,
        cpu: Option<Duration>,
    ) -> Control<L::Observed> {
        let mut failures = Vec::new();
        let kept = match outcome {
            Ok(value) => guard(Hook::Capture, &mut failures, || self.lens.capture(value)).map(Ok),
            Err(error) => Some(Err(self.summarize(error, &mut failures))),
        };
        let end = match (failures.pop(), kept) {
            (Some(failure), _) => ControlEnd::HookFailed(failure),
            (None, Some(kept)) => ControlEnd::Kept(kept),
            (None, None) => ControlEnd::Gone,
        };
        Control { end, wall_ns, cpu }
    }
}

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Inner<V, E, L> {
    /// Runs a candidate within its bounds.
    pub(crate) async fn execute<N, F>(&self, stop: &mut watch::Receiver<bool>, candidate: N) -> Ran<V>
    where
        N: FnOnce() -> F + Send,
        F: Future<Output = Result<V, E>> + Send,
    {
        let began = self.clock.tick();
        let (ended, cpu) = self.contained(stop, candidate).await;
        let wall_ns = self.clock.between(began, self.clock.tick());
        let mut failures = Vec::new();
        let ended = self.describe(ended, &mut failures);
        Ran { ended, wall_ns, cpu, failures }
    }

    /// Neither panic nor delay gets out of here, nor does it outlast a shutdown.
    pub(crate) async fn contained<N, F>(
        &self,
        stop: &mut watch::Receiver<bool>,
        candidate: N,
    ) -> (Ended<Result<V, E>>, Option<Duration>)
    where
        N: FnOnce() -> F,
        F: Future<Output = Result<V, E>>,
    {
        let run = tokio::time::timeout(self.limits.timeout, metered(self.measures_cpu, caught(candidate)));
        tokio::select! {
            biased;
            () = stopped(stop) => (Ended::Stopped, None),
            ended = run => match ended {
                Ok((Ok(result), cpu)) => (Ended::Value(result), cpu),
                Ok((Err(panic), cpu)) => (Ended::Panicked(panic_message(panic)), cpu),
                Err(_) => (Ended::TimedOut, None),
            },
        }
    }

    pub(crate) fn describe(&self, ended: Ended<Result<V, E>>, failures: &mut Vec<HookFailure>) -> Ended<V> {
        match ended {
            Ended::Value(Ok(value)) => Ended::Value(value),
            Ended::Value(Err(error)) => Ended::Error(self.summarize(&error, failures)),
            Ended::Error(error) => Ended::Error(error),
            Ended::Panicked(message) => Ended::Panicked(message),
            Ended::TimedOut => Ended::TimedOut,
            Ended::Stopped => Ended::Stopped,
        }
    }

    /// Compares, reads again, settles and publishes; gives control's end back for the next candidate, and
    /// what a test is to be told.
    pub(crate) async fn conclude(
        &self,
        run: &About<'_, V, E>,
        ticket: Ticket,
        control: Control<L::Observed>,
        ran: Ran<V>,
        stop: &mut watch::Receiver<bool>,
    ) -> (Control<L::Observed>, Option<String>) {
        let About { candidate, subject, again } = *run;
        let Ticket { mut entry, pass } = ticket;
        let Ran { ended, wall_ns: candidate_ns, cpu: candidate_cpu, mut failures } = ran;
        let now = || self.clock.now_ns();
        match &ended {
            Ended::Stopped => {
                entry.settle(Bin::Shed);
                return (control, None);
            }
            Ended::Panicked(_) | Ended::TimedOut => candidate.breaker.failed(pass, now),
            Ended::Error(_) if matches!(control.end, ControlEnd::Kept(Ok(_))) => {
                candidate.breaker.failed(pass, now);
            }
            Ended::Error(_) | Ended::Value(_) => candidate.breaker.succeeded(pass),
        }

        let (first, picture) = self.compare(&control.end, &ended, &mut failures);
        let (verdict, mut picture) = match again {
            Some(again) if first.is_mismatch() => self.read_again(again, picture, stop, &mut failures).await,
            _ => (first, picture),
        };
        if let (Some(cohort), Some(key), ControlEnd::Kept(Ok(value))) =
            (&self.hooks.cohort, &subject.key, &control.end)
            && let Some(cohort) = guard(Hook::Cohort, &mut failures, || cohort(key, value))
        {
            candidate.ledger.assign(&mut entry, &cohort);
        }

        let (control_ns, candidate_ns) = self.durations(control.wall_ns, candidate_ns);
        let has_pair = !matches!(control.end, ControlEnd::Gone);
        if has_pair && matches!(ended, Ended::Value(_) | Ended::TimedOut) {
            entry.record_latencies(control_ns, candidate_ns);
        }
        entry.settle(verdict.bin());

        let raises = self.raises && verdict.is_mismatch();
        if !raises && !self.is_wanted(&verdict) {
            return (control, None);
        }
        let old = Branch::new(control.end.outcome(), control_ns, control.cpu, &mut picture.old);
        let new = Branch::new(ended.outcome(), candidate_ns, candidate_cpu, &mut picture.new);
        let differences = picture.differences;
        let observation =
            self.observation(candidate, &entry, subject, (old, new), verdict, differences, failures);
        self.publish(&observation);
        (control, raises.then(|| raised(&observation)))
    }

    fn compare(
        &self,
        control: &ControlEnd<L::Observed>,
        candidate: &Ended<V>,
        failures: &mut Vec<HookFailure>,
    ) -> (Verdict, Picture) {
        let nothing = |verdict| (verdict, Picture::default());
        let seen = match candidate {
            Ended::Panicked(_) => return nothing(Verdict::Panicked),
            Ended::TimedOut => return nothing(Verdict::TimedOut),
            Ended::Value(value) => Ok(value),
            Ended::Error(error) => Err(error),
            Ended::Stopped => return nothing(Verdict::Incomparable(Incomparable::Control)),
        };
        let control = match control {
            ControlEnd::Kept(control) => control.as_ref(),
            ControlEnd::Gone => return nothing(Verdict::Incomparable(Incomparable::Control)),
            ControlEnd::HookFailed(failure) => {
                failures.push(failure.clone());
                return nothing(Verdict::Incomparable(Incomparable::Hook));
            }
        };
        self.look(seen, failures, |new, failures| self.weigh(control, new, failures))
            .unwrap_or_else(|| nothing(Verdict::Incomparable(Incomparable::Hook)))
    }

    /// Reads control once more, for the share of calls that measure its noise.
    pub(crate) async fn measure_noise(
        &self,
        control: Control<L::Observed>,
        again: &Again<V, E>,
        stop: &mut watch::Receiver<bool>,
    ) {
        let ControlEnd::Kept(first) = control.end else {
            return;
        };
        let mut failures = Vec::new();
        let (ended, _) = self.contained(stop, &again.control).await;
        let second = self.describe(ended, &mut failures);
        if let Some(second) = second.seen() {
            let agrees = self.look(second, &mut failures, |second, failures| {
                self.hooks.agrees(first.as_ref(), second, failures)
            });
            self.noise.count(agrees.unwrap_or(false));
        }
    }
}

impl<V, E, L: View<V>> Inner<V, E, L> {
    /// What was measured, or what a test says that it was.
    pub(crate) fn durations(&self, control_ns: u64, candidate_ns: u64) -> (u64, u64) {
        match self.fixed {
            None => (control_ns, candidate_ns),
            Some(fixed) => {
                use crate::sketch::nanoseconds;
                (nanoseconds(fixed.control), nanoseconds(fixed.candidate))
            }
        }
    }
}

impl<V> Ended<V> {
    pub(crate) fn seen(&self) -> Option<Seen<'_, V>> {
        match self {
            Self::Value(value) => Some(Ok(value)),
            Self::Error(error) => Some(Err(error)),
            Self::Panicked(_) | Self::TimedOut | Self::Stopped => None,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Value(_) => Outcome::Value,
            Self::Error(error) => Outcome::Error(error.clone()),
            Self::Panicked(message) => Outcome::Panicked(message.clone()),
            Self::TimedOut => Outcome::TimedOut,
            Self::Stopped => Outcome::Gone,
        }
    }
}

impl<O> ControlEnd<O> {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Kept(Ok(_)) | Self::HookFailed(_) => Outcome::Value,
            Self::Kept(Err(error)) => Outcome::Error(error.clone()),
            Self::Gone => Outcome::Gone,
        }
    }
}

/// Ends when candidates are to stop; never where the experiment is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One candidate of a call off the caller's path, from its start to its end.
#[expect(clippy::too_many_arguments, reason = "a task owns all that it needs")]
pub(crate) async fn follow<V, E, L, N, F>(
    inner: Arc<Inner<V, E, L>>,
    ticket: Ticket,
    subject: Subject,
    slot: Option<Slot<V, E, L>>,
    mut stop: watch::Receiver<bool>,
    control: ControlSource<L::Observed>,
    candidate: N,
    again: Option<Again<V, E>>,
) -> Option<String>
where
    V: Send + 'static,
    E: Send + 'static,
    L: Capture<V>,
    N: FnOnce() -> F + Send + 'static,
    F: Future<Output = Result<V, E>> + Send + 'static,
{
    let ran = inner.execute(&mut stop, candidate).await;
    let control = control.ended().await;
    drop(slot);
    let about = About { candidate: &inner.roster.only, subject: &subject, again: again.as_ref() };
    let (control, raised) = inner.conclude(&about, ticket, control, ran, &mut stop).await;
    if let Some(again) = &again
        && inner.noise_ppm > 0
        && fastrand::u32(..crate::PPM_ALL) < inner.noise_ppm
    {
        inner.measure_noise(control, again, &mut stop).await;
    }
    raised
}
