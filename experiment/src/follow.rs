//! The candidate's task: run, compare, read again, settle, publish.

use std::{sync::Arc, time::Duration};

use tokio::sync::{oneshot, watch};

use crate::{
    Branch, Capture, ErrorSummary, Hook, HookFailure, Incomparable, Outcome, Verdict, View,
    admit::{Run, Slot, Subject, Ticket},
    contain::Contained,
    execute::{Ended, Executes, Hold, NoThread, Ran},
    experiment::Inner,
    hooks::{Picture, guard},
    ledger::Bin,
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
    Kept(Contained<Result<O, ErrorSummary>>),
    HookFailed(HookFailure),
    /// It panicked, or its caller went away.
    Gone,
}

/// Where a candidate's task gets control's end from.
pub(crate) enum ControlSource<O> {
    Ended(Control<O>),
    Running(oneshot::Receiver<Control<O>>),
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
            (None, Some(kept)) => ControlEnd::Kept(Contained::new(kept)),
            (None, None) => ControlEnd::Gone,
        };
        Control { end, wall_ns, cpu }
    }
}

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Inner<V, E, L> {
    /// Compares, reads again, settles and publishes; gives control's end back for the next candidate, and
    /// what a test is to be told. All that takes its time belongs to the slot, but for reading again, which
    /// has bounds of its own and waits.
    pub(crate) async fn conclude(
        &self,
        run: &About<'_, V, E>,
        ticket: Ticket,
        control: Control<L::Observed>,
        ran: Ran<V>,
        slot: &mut Option<Slot<V, E, L>>,
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
            Ended::Error(_) if control.end.value().is_some() => {
                candidate.breaker.failed(pass, now);
            }
            Ended::Error(_) | Ended::Value(_) => candidate.breaker.succeeded(pass),
        }

        let (first, picture) = self.compare(&control.end, &ended, &mut failures);
        let (verdict, mut picture) = match again {
            Some(again) if first.is_mismatch() => {
                drop(slot.take());
                Box::pin(self.read_again(again, picture, stop, &mut failures)).await
            }
            _ => (first, picture),
        };
        if let (Some(cohort), Some(key), Some(value)) =
            (&self.hooks.cohort, &subject.key, control.end.value())
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
            Ended::Value(value) => Ok(value.get()),
            Ended::Error(error) => Err(error),
            Ended::Stopped => return nothing(Verdict::Incomparable(Incomparable::Control)),
        };
        let control = match control {
            ControlEnd::Kept(control) => control.get().as_ref(),
            ControlEnd::Gone => return nothing(Verdict::Incomparable(Incomparable::Control)),
            ControlEnd::HookFailed(failure) => {
                failures.push(failure.clone());
                return nothing(Verdict::Incomparable(Incomparable::Hook));
            }
        };
        self.look(seen, failures, |new, failures| self.weigh(control, new, failures))
            .unwrap_or_else(|| nothing(Verdict::Incomparable(Incomparable::Hook)))
    }

    /// Reads control once more, for the share of calls that measure its noise; where there is room to.
    pub(crate) async fn measure_noise(
        &self,
        control: Control<L::Observed>,
        again: &Again<V, E>,
        stop: &mut watch::Receiver<bool>,
    ) {
        let ControlEnd::Kept(first) = control.end else {
            return;
        };
        let Some(_slot) = self.recheck_slot() else {
            return;
        };
        let mut failures = Vec::new();
        let second = self.reread(&again.control, stop, &mut failures).await;
        if let Some(second) = second.seen() {
            let agrees = self.look(second, &mut failures, |second, failures| {
                self.hooks.agrees(first.get().as_ref(), second, failures)
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

impl<O> ControlEnd<O> {
    fn value(&self) -> Option<&O> {
        match self {
            Self::Kept(kept) => kept.get().as_ref().ok(),
            Self::HookFailed(_) | Self::Gone => None,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Kept(kept) => match kept.get() {
                Ok(_) => Outcome::Value,
                Err(error) => Outcome::Error(error.clone()),
            },
            Self::HookFailed(_) => Outcome::Value,
            Self::Gone => Outcome::Gone,
        }
    }
}

/// The task of a call's candidates: all that it needs is its own.
pub(crate) struct Follower<V, E, L: Capture<V>>
where
    V: 'static,
{
    pub(crate) inner: Arc<Inner<V, E, L>>,
    pub(crate) subject: Subject,
    pub(crate) hold: Hold<V, E, L>,
    pub(crate) control: ControlSource<L::Observed>,
}

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Follower<V, E, L> {
    /// The candidates of a call off the caller's path, from their start to their end: one after the other, as several must
    /// not be a burst. They share the call's slot. Gives what a test is to be told.
    pub(crate) async fn follow<B, R>(self, runs: R, again: Option<Again<V, E>>) -> Option<String>
    where
        B: Executes<V, E, L>,
        R: IntoIterator<Item = Run<B>, IntoIter: Send> + Send + 'static,
    {
        let Self { inner, subject, hold, control } = self;
        // Here and not by the caller: who shuts down waits for what is in flight, and what begins later sees it at once.
        let mut stop = inner.stop.subscribe();
        let mut next = Some(hold);
        let mut slot = None;
        let mut source = control;
        let mut first_raised = None;
        for Run { named, mut ticket, build } in runs {
            let hold = match next.take() {
                Some(hold) => hold,
                None => match inner.hold_again(slot.take()).await {
                    Ok(hold) => hold,
                    Err(NoThread) => {
                        ticket.entry.settle(Bin::Shed);
                        continue;
                    }
                },
            };
            let (ran, left) = build.execute(&inner, &mut stop, hold).await;
            slot = left;
            let control = source.ended().await;
            let candidate = named.as_deref().unwrap_or(&inner.roster.only);
            let about = About { candidate, subject: &subject, again: again.as_ref() };
            let (control, raised) = inner.conclude(&about, ticket, control, ran, &mut slot, &mut stop).await;
            source = ControlSource::Ended(control);
            first_raised = first_raised.or(raised);
        }
        if let Some(again) = &again
            && inner.noise_ppm > 0
            && fastrand::u32(..crate::PPM_ALL) < inner.noise_ppm
        {
            let control = source.ended().await;
            Box::pin(inner.measure_noise(control, again, &mut stop)).await;
        }
        first_raised
    }
}

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Inner<V, E, L> {
    /// What the next candidate of a call takes up. Where the one before did not come back, the call's slot is still its,
    /// and another is needed: no call may have more running than it has slots.
    async fn hold_again(self: &Arc<Self>, slot: Option<Slot<V, E, L>>) -> Result<Hold<V, E, L>, NoThread> {
        let slot = Some(slot.or_else(|| Slot::take(self)).ok_or(NoThread)?);
        Ok(Hold { slot, permit: self.thread().await? })
    }
}
