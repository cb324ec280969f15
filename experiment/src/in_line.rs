//! In line: candidate and comparison on the caller's task, where that is wanted.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::runtime::Handle;

use crate::{
    Branch, ErrorSummary, Experiment, Hook, HookFailure, Incomparable, Order, Outcome, Seen, Verdict, View,
    admit::Ticket,
    clock::{Clock, Tick},
    contain::{Caught, caught, drop_contained},
    experiment::Inner,
    hooks::{Assessment, Picture, guard, panic_message},
    ledger::Bin,
    meter::{metered, metered_sync},
    sample::Draw,
    sketch::nanoseconds,
    weigh::raised,
};

impl<V: 'static, E: 'static, L: View<V>> Experiment<V, E, L> {
    /// Runs both sides on the caller's task in the experiment's [`Order`], and gives back what control gave.
    /// The values are compared where they are: they need not be `Clone` or `Send`. The caller waits for the
    /// candidate too, up to [`in_line_timeout`](crate::Builder::in_line_timeout) where that is set; its errors
    /// and panics are contained.
    ///
    /// # Errors
    /// Control's, unchanged.
    pub async fn run_in_line<C, CF, N, NF>(
        &self,
        key: impl AsRef<[u8]>,
        control: C,
        candidate: N,
    ) -> Result<V, E>
    where
        C: FnOnce() -> CF,
        CF: Future<Output = Result<V, E>>,
        N: FnOnce() -> NF,
        NF: Future<Output = Result<V, E>>,
    {
        let key = key.as_ref();
        match self.draw(key) {
            Draw::Bare => return control().await,
            Draw::ForcedCandidate => return candidate().await,
            Draw::Sampled => {}
        }
        let inner = &*self.inner;
        let Some(ticket) = self.enter_in_line(key) else {
            return control().await;
        };
        let clock = &inner.clock;
        let is_plain = !inner.measures_cpu && inner.in_line_timeout.is_none();
        // The common cases by themselves: each layer around a future costs nanoseconds.
        if is_plain && inner.order == Order::ControlFirst {
            let began = clock.tick();
            let old = control().await;
            let between = clock.tick();
            let new = caught(candidate).await;
            let ended = clock.tick();
            let control = Side { output: &old, wall_ns: clock.between(began, between), cpu: None };
            let candidate = Side { output: Some(new), wall_ns: clock.between(between, ended), cpu: None };
            inner.settle_in_line(ticket, key, control, candidate);
            return old;
        }
        if is_plain && inner.order == Order::Concurrent {
            let began = clock.tick();
            let ((old, old_ended), (new, new_ended)) = both(clock, control(), caught(candidate)).await;
            let control = Side { output: &old, wall_ns: clock.between(began, old_ended), cpu: None };
            let candidate = Side { output: Some(new), wall_ns: clock.between(began, new_ended), cpu: None };
            inner.settle_in_line(ticket, key, control, candidate);
            return old;
        }
        let Some(candidate) = bounded(inner.in_line_timeout, caught(candidate)) else {
            let mut entry = ticket.entry;
            entry.settle(Bin::Shed);
            return control().await;
        };
        let cpu = inner.measures_cpu;
        let began = clock.tick();
        let (old, new) = match inner.order {
            Order::Concurrent => {
                let (control, candidate) = (metered(cpu, control()), metered(cpu, candidate));
                let ((old, old_ended), (new, new_ended)) = both(clock, control, candidate).await;
                (
                    Side::new(old, clock.between(began, old_ended)),
                    Side::new(new, clock.between(began, new_ended)),
                )
            }
            Order::Random if fastrand::bool() => {
                let new = metered(cpu, candidate).await;
                let between = clock.tick();
                let old = metered(cpu, control()).await;
                let ended = clock.tick();
                (Side::new(old, clock.between(between, ended)), Side::new(new, clock.between(began, between)))
            }
            Order::ControlFirst | Order::Random => {
                let old = metered(cpu, control()).await;
                let between = clock.tick();
                let new = metered(cpu, candidate).await;
                let ended = clock.tick();
                (Side::new(old, clock.between(began, between)), Side::new(new, clock.between(between, ended)))
            }
        };
        let control = Side { output: &old.output, wall_ns: old.wall_ns, cpu: old.cpu };
        inner.settle_in_line(ticket, key, control, new);
        old.output
    }

    /// As [`run_in_line`](Self::run_in_line), for code that does not await. [`Order::Concurrent`] means
    /// control first here.
    ///
    /// # Errors
    /// Control's, unchanged.
    #[inline]
    pub fn run_sync_in_line<C, N>(&self, key: impl AsRef<[u8]>, control: C, candidate: N) -> Result<V, E>
    where
        C: FnOnce() -> Result<V, E>,
        N: FnOnce() -> Result<V, E>,
    {
        match self.draw(key.as_ref()) {
            Draw::Bare => control(),
            Draw::ForcedCandidate => candidate(),
            Draw::Sampled => self.run_sync_sampled(key.as_ref(), control, candidate),
        }
    }

    fn run_sync_sampled<C, N>(&self, key: &[u8], control: C, candidate: N) -> Result<V, E>
    where
        C: FnOnce() -> Result<V, E>,
        N: FnOnce() -> Result<V, E>,
    {
        let inner = &*self.inner;
        let Some(ticket) = self.enter_in_line(key) else {
            return control();
        };
        let (clock, cpu) = (&inner.clock, inner.measures_cpu);
        let candidate = || Some(catch_unwind(AssertUnwindSafe(candidate)));
        let began = clock.tick();
        let (old, new) = if inner.order == Order::Random && fastrand::bool() {
            let new = metered_sync(cpu, candidate);
            let between = clock.tick();
            let old = metered_sync(cpu, control);
            let ended = clock.tick();
            (Side::new(old, clock.between(between, ended)), Side::new(new, clock.between(began, between)))
        } else {
            let old = metered_sync(cpu, control);
            let between = clock.tick();
            let new = metered_sync(cpu, candidate);
            let ended = clock.tick();
            (Side::new(old, clock.between(began, between)), Side::new(new, clock.between(between, ended)))
        };
        let control = Side { output: &old.output, wall_ns: old.wall_ns, cpu: old.cpu };
        inner.settle_in_line(ticket, key, control, new);
        old.output
    }
}

/// A candidate's end in line; `None` where it did not end in time.
type Timed<T> = Option<Caught<T>>;

/// A side that has ended, and what that took.
struct Side<T> {
    output: T,
    wall_ns: u64,
    cpu: Option<Duration>,
}

impl<T> Side<T> {
    fn new((output, cpu): (T, Option<Duration>), wall_ns: u64) -> Self {
        Self { output, wall_ns, cpu }
    }
}

impl<V: 'static, E: 'static, L: View<V>> Inner<V, E, L> {
    /// Compares, settles and publishes. Two values that agree, with nobody to tell, are most calls: they take
    /// the short way.
    #[inline]
    fn settle_in_line(
        &self,
        mut ticket: Ticket,
        key: &[u8],
        control: Side<&Result<V, E>>,
        candidate: Side<Timed<Result<V, E>>>,
    ) {
        let mut failures = Vec::new();
        let mut assessment = None;
        let in_time = self.in_line_timeout.is_none_or(|limit| candidate.wall_ns <= nanoseconds(limit));
        if let (Ok(old), Some(Ok(Ok(new)))) = (control.output, &candidate.output)
            && in_time
        {
            assessment = self.assess_values(old, new, &mut failures);
            if assessment == Some(Assessment::Agree)
                && failures.is_empty()
                && self.hooks.cohort.is_none()
                && !self.is_wanted(&Verdict::Matched)
            {
                self.roster.only.breaker.succeeded(ticket.pass);
                let (control_ns, candidate_ns) = self.durations(control.wall_ns, candidate.wall_ns);
                ticket.entry.record_latencies(control_ns, candidate_ns);
                ticket.entry.settle(Bin::Matched);
                drop_contained(candidate.output);
                return;
            }
        }
        let candidate = match candidate {
            // One that could not be stopped is found out afterwards.
            Side { output: Some(Ok(late)), wall_ns, cpu } if !in_time => {
                drop_contained(late);
                Side { output: None, wall_ns, cpu }
            }
            candidate => candidate,
        };
        self.settle_in_full(ticket, key, control, candidate, assessment, failures);
    }

    fn assess_values(&self, old: &V, new: &V, failures: &mut Vec<HookFailure>) -> Option<Assessment> {
        let both = self.look(Ok(old), failures, |old, failures| {
            self.look(Ok(new), failures, |new, failures| self.hooks.assess(old, new, failures))
        });
        both.flatten()
    }

    #[inline(never)]
    fn settle_in_full(
        &self,
        ticket: Ticket,
        key: &[u8],
        control: Side<&Result<V, E>>,
        candidate: Side<Timed<Result<V, E>>>,
        assessment: Option<Assessment>,
        mut failures: Vec<HookFailure>,
    ) {
        let Ticket { mut entry, pass } = ticket;
        let only = &*self.roster.only;
        let now = || self.clock.now_ns();
        let old = control.output;
        let old_error = old.as_ref().err().map(|error| self.summarize(error, &mut failures));
        let (control_ns, candidate_ns) = self.durations(control.wall_ns, candidate.wall_ns);
        let (verdict, mut picture, new_outcome) = match candidate.output {
            None => {
                only.breaker.failed(pass, now);
                entry.record_latencies(control_ns, candidate_ns);
                (Verdict::TimedOut, Picture::default(), Outcome::TimedOut)
            }
            Some(Err(panic)) => {
                only.breaker.failed(pass, now);
                (Verdict::Panicked, Picture::default(), Outcome::Panicked(panic_message(panic)))
            }
            Some(Ok(new)) => {
                let new_error = new.as_ref().err().map(|error| self.summarize(error, &mut failures));
                if new.is_err() && old.is_ok() {
                    only.breaker.failed(pass, now);
                } else {
                    only.breaker.succeeded(pass);
                }
                let new_seen = seen(&new, new_error.as_ref());
                let (verdict, picture) = self
                    .look(seen(old, old_error.as_ref()), &mut failures, |old, failures| {
                        self.look(new_seen, failures, |new, failures| {
                            let assessment =
                                assessment.unwrap_or_else(|| self.hooks.assess(old, new, failures));
                            self.weigh_as(assessment, old, new, failures)
                        })
                    })
                    .flatten()
                    .unwrap_or_else(|| (Verdict::Incomparable(Incomparable::Hook), Picture::default()));
                if new.is_ok() {
                    entry.record_latencies(control_ns, candidate_ns);
                }
                drop_contained(new);
                (verdict, picture, new_error.map_or(Outcome::Value, Outcome::Error))
            }
        };
        if let (Some(cohort), Ok(value)) = (&self.hooks.cohort, old) {
            let named = self.look(Ok(value), &mut failures, |old, failures| {
                let old = old.ok()?;
                guard(Hook::Cohort, failures, || cohort(key, old))
            });
            if let Some(cohort) = named.flatten() {
                only.ledger.assign(&mut entry, &cohort);
            }
        }
        entry.settle(verdict.bin());
        let raises = self.raises && verdict.is_mismatch();
        if !raises && !self.is_wanted(&verdict) {
            return;
        }
        let old_outcome = old_error.map_or(Outcome::Value, Outcome::Error);
        let old_side = Branch::new(old_outcome, control_ns, control.cpu, &mut picture.old);
        let new_side = Branch::new(new_outcome, candidate_ns, candidate.cpu, &mut picture.new);
        let subject = self.subject(key);
        let sides = (old_side, new_side);
        let differences = picture.differences;
        let observation = self.observation(only, &entry, &subject, sides, verdict, differences, failures);
        self.publish(&observation);
        if raises {
            drop(entry);
            panic!("{}", raised(&observation));
        }
    }
}

fn seen<'a, V, E>(side: &'a Result<V, E>, error: Option<&'a ErrorSummary>) -> Seen<'a, V> {
    match (side, error) {
        (Ok(value), _) => Ok(value),
        (Err(_), Some(error)) => Err(error),
        (Err(_), None) => unreachable!("an error is summarised before it is looked at"),
    }
}

/// The candidate within its time, where it has one. `None` where there is no timer to tell: not even that may panic
/// into the caller.
fn bounded<T>(
    limit: Option<Duration>,
    candidate: impl Future<Output = T>,
) -> Option<impl Future<Output = Option<T>>> {
    let timer = match limit {
        Some(limit) => {
            Handle::try_current().ok()?;
            Some(catch_unwind(|| tokio::time::sleep(limit)).ok()?)
        }
        None => None,
    };
    Some(async {
        match timer {
            None => Some(candidate.await),
            Some(timer) => tokio::select! {
                biased;
                ended = candidate => Some(ended),
                () = timer => None,
            },
        }
    })
}

/// Polls both until both have ended, and says when each did.
async fn both<A, B>(
    clock: &Clock,
    a: impl Future<Output = A>,
    b: impl Future<Output = B>,
) -> ((A, Tick), (B, Tick)) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut ended_a, mut ended_b) = (None, None);
    poll_fn(|context| {
        poll_timed(clock, a.as_mut(), &mut ended_a, context);
        poll_timed(clock, b.as_mut(), &mut ended_b, context);
        if ended_a.is_some() && ended_b.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    match (ended_a, ended_b) {
        (Some(a), Some(b)) => (a, b),
        _ => unreachable!("both have ended"),
    }
}

/// Polls unless it has ended.
#[inline]
fn poll_timed<F: Future>(
    clock: &Clock,
    future: Pin<&mut F>,
    ended: &mut Option<(F::Output, Tick)>,
    context: &mut Context<'_>,
) {
    if ended.is_none()
        && let Poll::Ready(output) = future.poll(context)
    {
        *ended = Some((output, clock.tick()));
    }
}
