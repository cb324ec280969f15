//! The end of a candidate in line: compare, count, publish, on the caller's task.

use std::time::Duration;

use crate::{
    Branch, ErrorSummary, Hook, HookFailure, Incomparable, Outcome, Seen, Verdict, View,
    admit::Ticket,
    contain::{Caught, Contained, drop_contained},
    experiment::Inner,
    hooks::{Assessment, Picture, guard, panic_message},
    ledger::Bin,
    roster::Candidate,
    sketch::nanoseconds,
    weigh::raised,
};

/// A candidate's end in line; `None` where it did not end in time.
pub(crate) type Timed<T> = Option<Caught<T>>;

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
    /// Compares, settles and publishes; gives what a test is to be told. Two values that agree, with nobody to tell, are
    /// most calls: they take the short way.
    #[inline]
    pub(crate) fn settle_in_line(
        &self,
        candidate: &Candidate,
        mut ticket: Ticket,
        key: &[u8],
        control: Side<&Result<V, E>>,
        ended: Side<Timed<Result<V, E>>>,
    ) -> Option<String> {
        let mut failures = Vec::new();
        let mut assessment = None;
        let in_time = self.in_line_timeout.is_none_or(|limit| ended.wall_ns <= nanoseconds(limit));
        if let (Ok(old), Some(Ok(Ok(new)))) = (control.output, ended.output.as_ref().map(Contained::get))
            && in_time
        {
            assessment = self.assess_values(old, new, &mut failures);
            if assessment == Some(Assessment::Agree)
                && failures.is_empty()
                && self.hooks.cohort.is_none()
                && !self.is_wanted(&Verdict::Matched)
            {
                candidate.breaker.succeeded(ticket.pass);
                let (control_ns, candidate_ns) = self.durations(control.wall_ns, ended.wall_ns);
                ticket.entry.record_latencies(control_ns, candidate_ns);
                ticket.entry.settle(Bin::Matched);
                return None;
            }
        }
        self.settle_in_full(candidate, ticket, key, control, ended, assessment, failures)
    }

    fn assess_values(&self, old: &V, new: &V, failures: &mut Vec<HookFailure>) -> Option<Assessment> {
        let both = self.look(Ok(old), failures, |old, failures| {
            self.look(Ok(new), failures, |new, failures| self.hooks.assess(old, new, failures))
        });
        both.flatten()
    }

    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "what the short way has, and what it has found out")]
    fn settle_in_full(
        &self,
        candidate: &Candidate,
        ticket: Ticket,
        key: &[u8],
        control: Side<&Result<V, E>>,
        ended: Side<Timed<Result<V, E>>>,
        assessment: Option<Assessment>,
        mut failures: Vec<HookFailure>,
    ) -> Option<String> {
        let Ticket { mut entry, pass } = ticket;
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
                            let assessment =
                                assessment.unwrap_or_else(|| self.hooks.assess(old, new, failures));
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
