//! The end of a candidate in line: compare, count, publish, on the caller's task.

use std::{
    cell::Cell,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::{
    Branch, Comparison, ErrorSummary, Hook, HookFailure, Incomparable, Outcome, Seen, Verdict, View,
    admit::Ticket,
    contain::{Caught, Contained, drop_contained},
    experiment::Inner,
    hooks::{Picture, guard, panic_message},
    in_line::raise,
    leave::{Holds, Leave},
    sketch::nanoseconds,
    weigh::raised,
};

/// A candidate's end in line; `None` where it did not end in time.
pub(crate) type Timed<T> = Option<Caught<T>>;

/// What comparing two values has come to, or the hook that panicked.
pub(crate) type Asked = Result<Comparison, HookFailure>;

/// A side that has ended, and what that took.
pub(crate) struct Side<T> {
    pub(crate) output: T,
    pub(crate) wall_ns: u64,
    pub(crate) cpu: Option<Duration>,
}

impl<T> Side<T> {
    pub(crate) fn new((output, cpu): (T, Option<Duration>), wall_ns: u64) -> Self {
        Self { output, wall_ns, cpu }
    }

    pub(crate) fn as_ref(&self) -> Side<&T> {
        Side { output: &self.output, wall_ns: self.wall_ns, cpu: self.cpu }
    }
}

impl<V: 'static, E: 'static, L: View<V>> Inner<V, E, L> {
    /// Compares, settles and publishes; gives what a test is to be told.
    #[inline]
    pub(crate) fn settle_in_line<C: Holds>(
        &self,
        mut leave: Leave<C>,
        key: &[u8],
        control: Side<&Result<V, E>>,
        ended: Side<Timed<Result<V, E>>>,
    ) -> Option<String> {
        let in_time = self.in_line_timeout.is_none_or(|limit| ended.wall_ns <= nanoseconds(limit));
        let asked = match &ended.output {
            Some(new) if in_time => {
                match self.settle_agreed(&mut leave, control.output, new, (control.wall_ns, ended.wall_ns)) {
                    ControlFlow::Break(()) => return None,
                    ControlFlow::Continue(asked) => asked,
                }
            }
            _ => None,
        };
        self.settle_in_full(leave, key, control, ended, asked)
    }

    /// As [`settle_in_line`](Self::settle_in_line), of two sides that had all time they wanted; raises too.
    #[inline]
    pub(crate) fn settle_plain<C: Holds>(
        &self,
        mut leave: Leave<C>,
        key: &[u8],
        old: &Result<V, E>,
        new: Caught<Result<V, E>>,
        wall_ns: (u64, u64),
    ) {
        if let ControlFlow::Continue(asked) = self.settle_agreed(&mut leave, old, &new, wall_ns) {
            let control = Side { output: old, wall_ns: wall_ns.0, cpu: None };
            let ended = Side { output: Some(new), wall_ns: wall_ns.1, cpu: None };
            raise(self.settle_in_full(leave, key, control, ended, asked));
        }
    }

    /// Two values that agree, with nobody to tell, are most calls: they take this short way, and are settled. Of all others it
    /// gives what comparing them has come to, where they were compared.
    #[inline]
    pub(crate) fn settle_agreed<C: Holds>(
        &self,
        leave: &mut Leave<C>,
        old: &Result<V, E>,
        new: &Caught<Result<V, E>>,
        (control_ns, candidate_ns): (u64, u64),
    ) -> ControlFlow<(), Option<Asked>> {
        let (Ok(old), Ok(Ok(new))) = (old, new.get()) else {
            return ControlFlow::Continue(None);
        };
        let asked = self.compare_values(old, new);
        let ends_here = matches!(asked, Ok(Comparison::Match))
            && self.hooks.cohort.is_none()
            && !self.is_wanted(&Verdict::Matched);
        if !ends_here {
            return ControlFlow::Continue(Some(asked));
        }
        let (control_ns, candidate_ns) = self.durations(control_ns, candidate_ns);
        leave.matched(control_ns, candidate_ns);
        ControlFlow::Break(())
    }

    /// One net under views and comparison: that is all that two sides which agree need.
    #[inline]
    fn compare_values(&self, old: &V, new: &V) -> Asked {
        let asked = Cell::new(Hook::Capture);
        let compare = |old: &L::Observed, new: &L::Observed| {
            asked.set(Hook::Compare);
            let compared = (self.hooks.compare)(old, new);
            asked.set(Hook::Capture);
            compared
        };
        let views = || self.lens.show(old, |old| self.lens.show(new, |new| compare(old, new)));
        catch_unwind(AssertUnwindSafe(views))
            .map_err(|panic| HookFailure { hook: asked.get(), message: panic_message(panic) })
    }

    /// All other ends. `asked`: what comparing the values has come to, where they were compared.
    #[inline(never)]
    pub(crate) fn settle_in_full<C: Holds>(
        &self,
        mut leave: Leave<C>,
        key: &[u8],
        control: Side<&Result<V, E>>,
        ended: Side<Timed<Result<V, E>>>,
        asked: Option<Asked>,
    ) -> Option<String> {
        let Ticket { mut entry, pass } = leave.open();
        let candidate = &*leave.candidate;
        let mut failures = Vec::new();
        let compared = asked.map(|asked| asked.map_err(|failure| failures.push(failure)).ok());
        let late = self.in_line_timeout.is_some_and(|limit| ended.wall_ns > nanoseconds(limit));
        let now = || self.clock.now_ns();
        let old = control.output;
        let old_error = old.as_ref().err().map(|error| self.summarize(error, &mut failures));
        let (control_ns, candidate_ns) = self.durations(control.wall_ns, ended.wall_ns);
        let (verdict, mut picture, new_outcome) = match ended.output.map(Contained::into_inner) {
            None => {
                candidate.breaker.failed(pass, now);
                entry.record_latencies(control_ns, candidate_ns);
                (Verdict::TimedOut, Picture::default(), Outcome::TimedOut)
            }
            Some(Err(panic)) => {
                candidate.breaker.failed(pass, now);
                (Verdict::Panicked, Picture::default(), Outcome::Panicked(panic_message(panic)))
            }
            // One that could not be stopped is found out afterwards.
            Some(Ok(new)) if late => {
                drop_contained(new);
                candidate.breaker.failed(pass, now);
                entry.record_latencies(control_ns, candidate_ns);
                (Verdict::TimedOut, Picture::default(), Outcome::TimedOut)
            }
            Some(Ok(new)) => {
                let new = Contained::new(new);
                let new_error = new.get().as_ref().err().map(|error| self.summarize(error, &mut failures));
                if new_error.is_some() && old.is_ok() {
                    candidate.breaker.failed(pass, now);
                } else {
                    candidate.breaker.succeeded(pass);
                }
                let new_seen = seen(new.get(), new_error.as_ref());
                let (verdict, picture) = self
                    .look(seen(old, old_error.as_ref()), &mut failures, |old, failures| {
                        self.look(new_seen, failures, |new, failures| {
                            let assessment = match compared {
                                Some(compared) => self.hooks.assess_compared(compared, old, new, failures),
                                None => self.hooks.assess(old, new, failures),
                            };
                            self.weigh_as(assessment, old, new, failures)
                        })
                    })
                    .flatten()
                    .unwrap_or_else(|| (Verdict::Incomparable(Incomparable::Hook), Picture::default()));
                if new_error.is_none() {
                    entry.record_latencies(control_ns, candidate_ns);
                }
                (verdict, picture, new_error.map_or(Outcome::Value, Outcome::Error))
            }
        };
        if let (Some(cohort), Ok(value)) = (&self.hooks.cohort, old) {
            let named = self.look(Ok(value), &mut failures, |old, failures| {
                let old = old.ok()?;
                guard(Hook::Cohort, failures, || cohort(key, old))
            });
            if let Some(cohort) = named.flatten() {
                candidate.ledger.assign(&mut entry, &cohort);
            }
        }
        entry.settle(verdict.bin());
        let raises = self.raises && verdict.is_mismatch();
        if !raises && !self.is_wanted(&verdict) {
            return None;
        }
        let old_outcome = old_error.map_or(Outcome::Value, Outcome::Error);
        let old_side = Branch::new(old_outcome, control_ns, control.cpu, &mut picture.old);
        let new_side = Branch::new(new_outcome, candidate_ns, ended.cpu, &mut picture.new);
        let subject = self.subject(key);
        let sides = (old_side, new_side);
        let differences = picture.differences;
        let observation =
            self.observation(candidate, &entry, &subject, sides, verdict, differences, failures);
        self.publish(&observation);
        raises.then(|| raised(&observation))
    }
}

fn seen<'a, V, E>(side: &'a Result<V, E>, error: Option<&'a ErrorSummary>) -> Seen<'a, V> {
    match (side, error) {
        (Ok(value), _) => Ok(value),
        (Err(_), Some(error)) => Err(error),
        (Err(_), None) => unreachable!("an error is summarised before it is looked at"),
    }
}
