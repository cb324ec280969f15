//! In line: candidate and comparison on the caller's task, where that is wanted.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use crate::{
    Branch, ErrorSummary, Experiment, Order, Outcome, Verdict, View,
    contain::{Caught, caught, drop_contained},
    experiment::{Admission, Call},
    hooks::{Picture, panic_message},
};

impl<V: 'static, E: 'static, L: View<V>> Experiment<V, E, L> {
    /// Runs both sides on the caller's task in the experiment's [`Order`], and gives back what control gave.
    /// The values are compared where they are: they need not be `Clone` or `Send`. The caller waits for the
    /// candidate too, so nothing bounds it but itself; its errors and panics are contained.
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
        let call = match self.admit(key.as_ref(), false) {
            Admission::Bare => return control().await,
            Admission::ForcedCandidate => return candidate().await,
            Admission::Sampled(call) => call,
        };
        let clock = &call.inner.clock;
        let candidate_first = call.inner.order == Order::Random && fastrand::bool();
        let (old, new);
        let (control_ns, candidate_ns);
        let began = clock.now_ns();
        if call.inner.order == Order::Concurrent {
            let control = async { (control().await, clock.now_ns()) };
            let candidate = async { (caught(candidate).await, clock.now_ns()) };
            let ended = both(control, candidate).await;
            (old, new) = (ended.0.0, ended.1.0);
            (control_ns, candidate_ns) = (ended.0.1 - began, ended.1.1 - began);
        } else if candidate_first {
            new = caught(candidate).await;
            let between = clock.now_ns();
            old = control().await;
            (control_ns, candidate_ns) = (clock.now_ns() - between, between - began);
        } else {
            old = control().await;
            let between = clock.now_ns();
            new = caught(candidate).await;
            (control_ns, candidate_ns) = (between - began, clock.now_ns() - between);
        }
        call.settle_in_line(&old, new, control_ns, candidate_ns);
        old
    }

    /// As [`run_in_line`](Self::run_in_line), for code that does not await. The order is control first, or
    /// random; [`Order::Concurrent`] means control first here.
    ///
    /// # Errors
    /// Control's, unchanged.
    #[inline]
    pub fn run_sync_in_line<C, N>(&self, key: impl AsRef<[u8]>, control: C, candidate: N) -> Result<V, E>
    where
        C: FnOnce() -> Result<V, E>,
        N: FnOnce() -> Result<V, E>,
    {
        let call = match self.admit(key.as_ref(), false) {
            Admission::Bare => return control(),
            Admission::ForcedCandidate => return candidate(),
            Admission::Sampled(call) => call,
        };
        let clock = &call.inner.clock;
        let candidate = || catch_unwind(AssertUnwindSafe(candidate));
        let began = clock.now_ns();
        if call.inner.order == Order::Random && fastrand::bool() {
            let new = candidate();
            let between = clock.now_ns();
            let old = control();
            let ended = clock.now_ns();
            call.settle_in_line(&old, new, ended - between, between - began);
            old
        } else {
            let old = control();
            let between = clock.now_ns();
            let new = candidate();
            let ended = clock.now_ns();
            call.settle_in_line(&old, new, between - began, ended - between);
            old
        }
    }
}

impl<V: 'static, E: 'static, L: View<V>> Call<V, E, L> {
    fn settle_in_line(
        self,
        old: &Result<V, E>,
        new: Caught<Result<V, E>>,
        control_ns: u64,
        candidate_ns: u64,
    ) {
        let Self { inner, entry, pass, subject, mut failures, slot: _ } = self;
        let now = || inner.clock.now_ns();
        let old_error = old.as_ref().err().map(|error| inner.summarize(error, &mut failures));
        let old_seen = seen(old, old_error.as_ref());
        let (verdict, picture, candidate) = match new {
            Err(panic) => {
                inner.breaker.failed(pass, now);
                (Verdict::Panicked, Picture::default(), Outcome::Panicked(panic_message(panic)))
            }
            Ok(new) => {
                let new_error = new.as_ref().err().map(|error| inner.summarize(error, &mut failures));
                if new.is_err() && old.is_ok() {
                    inner.breaker.failed(pass, now);
                } else {
                    inner.breaker.succeeded(pass);
                }
                let new_seen = seen(&new, new_error.as_ref());
                let (verdict, picture) = inner
                    .look(old_seen, |old| inner.look(new_seen, |new| inner.weigh(old, new, &mut failures)));
                if new.is_ok() {
                    entry.page().record_latencies(control_ns, candidate_ns);
                }
                drop_contained(new);
                (verdict, picture, new_error.map_or(Outcome::Value, Outcome::Error))
            }
        };
        let epoch = entry.page().epoch;
        entry.settle(verdict.bin());
        inner.publish(&verdict, || {
            let branch = |outcome, nanoseconds, value| Branch {
                outcome,
                wall: Duration::from_nanos(nanoseconds),
                cpu: None,
                value,
            };
            let control = old_error.map_or(Outcome::Value, Outcome::Error);
            inner.observation(
                epoch,
                subject,
                branch(control, control_ns, picture.old),
                branch(candidate, candidate_ns, picture.new),
                verdict.clone(),
                picture.differences,
                failures,
            )
        });
    }
}

fn seen<'a, V, E>(
    side: &'a Result<V, E>,
    error: Option<&'a ErrorSummary>,
) -> Result<&'a V, &'a ErrorSummary> {
    match (side, error) {
        (Ok(value), _) => Ok(value),
        (Err(_), Some(error)) => Err(error),
        (Err(_), None) => unreachable!("an error is summarised before it is looked at"),
    }
}

/// Polls both until both have ended.
async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut ended_a, mut ended_b) = (None, None);
    poll_fn(|context| {
        if ended_a.is_none()
            && let Poll::Ready(ended) = a.as_mut().poll(context)
        {
            ended_a = Some(ended);
        }
        if ended_b.is_none()
            && let Poll::Ready(ended) = b.as_mut().poll(context)
        {
            ended_b = Some(ended);
        }
        match (ended_a.take(), ended_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (ended_a, ended_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}
