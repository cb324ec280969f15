//! Several candidates in line: whose turn it is, and for how long.

use std::{
    future::{Future, poll_fn},
    panic::catch_unwind,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::runtime::Handle;

use crate::{
    Order, View,
    admit::Offered,
    clock::{Clock, Tick},
    contain::Caught,
    experiment::Inner,
    in_line::raise,
    leave::Leave,
    meter::metered,
    roster::Candidate,
    settle::{Side, Timed},
};

/// A candidate in line.
pub(crate) trait Turn<V, E> {
    /// Runs it, under the net. What does not await is ready at the first poll.
    fn take(self) -> impl Future<Output = Caught<Result<V, E>>>;
}

/// A candidate that is to run.
type Run<B> = (Leave<Arc<Candidate>>, B);

/// A candidate that has ended, and is settled once control has.
struct Finished<V, E> {
    leave: Leave<Arc<Candidate>>,
    side: Side<Timed<Result<V, E>>>,
}

impl<V: 'static, E: 'static, L: View<V>> Inner<V, E, L> {
    /// Control and candidates on the caller's task, in the experiment's order. `limit` bounds each candidate.
    pub(crate) async fn run_in_turns<C, CF, B>(
        &self,
        key: &[u8],
        control: C,
        offered: Vec<Offered<B>>,
        limit: Option<Duration>,
    ) -> Result<V, E>
    where
        C: FnOnce() -> CF,
        CF: Future<Output = Result<V, E>>,
        B: Turn<V, E>,
    {
        let decision = self.decide(key);
        let enter = |Offered { candidate, build }| {
            let pass = self.enter(&candidate, key, &decision)?;
            Some((Leave::new(candidate, pass), build))
        };
        let mut runs: Vec<_> = offered.into_iter().filter_map(enter).collect();
        if runs.is_empty() {
            return control().await;
        }
        let (old, mut mismatch, rest) = match self.order {
            Order::Concurrent => {
                let (old, finished) = self.run_at_once(control(), runs, limit).await;
                let mismatch = self.settle_all(key, &old, finished);
                (old, mismatch, Vec::new())
            }
            Order::ControlFirst | Order::Random => {
                let rest = match self.order {
                    Order::Random => {
                        fastrand::shuffle(&mut runs);
                        runs.split_off(fastrand::usize(..=runs.len()))
                    }
                    _ => std::mem::take(&mut runs),
                };
                let mut finished = Vec::with_capacity(runs.len());
                for run in runs {
                    finished.extend(self.run_turn(run, limit).await);
                }
                let began = self.clock.tick();
                let old = metered(self.measures_cpu, control()).await;
                let old = Side::new(old, self.clock.between(began, self.clock.tick()));
                let mismatch = self.settle_all(key, &old, finished);
                (old, mismatch, rest)
            }
        };
        for run in rest {
            let finished = self.run_turn(run, limit).await;
            let found = self.settle_all(key, &old, finished);
            mismatch = mismatch.or(found);
        }
        raise(mismatch);
        old.output
    }

    /// As [`run_in_turns`](Self::run_in_turns), of code that does not await: nothing in it ever waits, and what is at once
    /// is one after the other, control first. No timer can end it; what took too long is found out afterwards.
    pub(crate) fn run_in_turns_sync<C, B>(
        &self,
        key: &[u8],
        control: C,
        offered: Vec<Offered<B>>,
    ) -> Result<V, E>
    where
        C: FnOnce() -> Result<V, E>,
        B: Turn<V, E>,
    {
        let all = pin!(self.run_in_turns(key, || async { control() }, offered, None));
        match all.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => unreachable!("nothing in it awaits"),
        }
    }

    /// One candidate by itself; none where it was shed, as there was no timer.
    async fn run_turn<B: Turn<V, E>>(
        &self,
        (mut leave, build): Run<B>,
        limit: Option<Duration>,
    ) -> Option<Finished<V, E>> {
        let turn = begin_turn(&mut leave, build, limit)?;
        let began = self.clock.tick();
        let ended = metered(self.measures_cpu, turn).await;
        let side = Side::new(ended, self.clock.between(began, self.clock.tick()));
        Some(Finished { leave, side })
    }

    /// Control and all candidates at once, on the caller's task.
    async fn run_at_once<B: Turn<V, E>>(
        &self,
        control: impl Future<Output = Result<V, E>>,
        runs: Vec<Run<B>>,
        limit: Option<Duration>,
    ) -> (Side<Result<V, E>>, Vec<Finished<V, E>>) {
        let began = self.clock.tick();
        let mut control = pin!(metered(self.measures_cpu, control));
        let mut old = None;
        let mut who = Vec::with_capacity(runs.len());
        let mut turns = Vec::with_capacity(runs.len());
        for (mut leave, build) in runs {
            if let Some(turn) = begin_turn(&mut leave, build, limit) {
                who.push(leave);
                turns.push((Box::pin(metered(self.measures_cpu, turn)), None));
            }
        }
        poll_fn(|context| {
            poll_timed(&self.clock, control.as_mut(), &mut old, context);
            for (turn, ended) in &mut turns {
                poll_timed(&self.clock, turn.as_mut(), ended, context);
            }
            let all = old.is_some() && turns.iter().all(|(_, ended)| ended.is_some());
            if all { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let finished = who
            .into_iter()
            .zip(turns)
            .map(|(leave, (_, ended))| Finished { leave, side: self.since(began, ended) });
        (self.since(began, old), finished.collect())
    }

    fn since<T>(&self, began: Tick, ended: Option<Ended<(T, Option<Duration>)>>) -> Side<T> {
        match ended {
            Some((output, at)) => Side::new(output, self.clock.between(began, at)),
            None => unreachable!("all have ended"),
        }
    }

    /// Settles candidates that have ended beside control; gives the first mismatch that a test is to be told.
    fn settle_all(
        &self,
        key: &[u8],
        control: &Side<Result<V, E>>,
        finished: impl IntoIterator<Item = Finished<V, E>>,
    ) -> Option<String> {
        let mut first = None;
        for Finished { leave, side } in finished {
            let found = self.settle_in_line(leave, key, control.as_ref(), side);
            first = first.or(found);
        }
        first
    }
}

/// A candidate's turn within its time; none where there is no timer to tell, and it is shed.
fn begin_turn<V, E, B: Turn<V, E>>(
    leave: &mut Leave<Arc<Candidate>>,
    build: B,
    limit: Option<Duration>,
) -> Option<impl Future<Output = Timed<Result<V, E>>> + use<V, E, B>> {
    let turn = bounded(limit, build.take());
    if turn.is_none() {
        leave.shed();
    }
    turn
}

/// The candidate within its time, where it has one, which begins with its first poll. `None` where there is no timer to
/// tell: not even that may panic into the caller.
pub(crate) fn bounded<T>(
    limit: Option<Duration>,
    candidate: impl Future<Output = T>,
) -> Option<impl Future<Output = Option<T>>> {
    if let Some(limit) = limit {
        Handle::try_current().ok()?;
        catch_unwind(|| drop(tokio::time::sleep(limit))).ok()?;
    }
    Some(async move {
        match limit {
            None => Some(candidate.await),
            Some(limit) => tokio::select! {
                biased;
                ended = candidate => Some(ended),
                () = tokio::time::sleep(limit) => None,
            },
        }
    })
}

/// What a side gave, and when.
pub(crate) type Ended<T> = (T, Tick);

/// Two sides after their first poll. Flat: pairs of what they gave and when would be moved about, which costs nanoseconds.
type First<A, B> = (Poll<A>, Tick, Poll<B>, Tick);

/// Polls both once: sides that are ready at once end here, with nothing put aside.
pub(crate) fn poll_both<A, B>(
    clock: &Clock,
    mut a: Pin<&mut impl Future<Output = A>>,
    mut b: Pin<&mut impl Future<Output = B>>,
) -> impl Future<Output = First<A, B>> {
    poll_fn(move |context| {
        let a = a.as_mut().poll(context);
        let a_at = clock.tick();
        let b = b.as_mut().poll(context);
        Poll::Ready((a, a_at, b, clock.tick()))
    })
}

/// Polls both until both have ended, and says when each did.
pub(crate) async fn both<A, B>(
    clock: &Clock,
    (first_a, a_at, first_b, b_at): First<A, B>,
    mut a: Pin<&mut impl Future<Output = A>>,
    mut b: Pin<&mut impl Future<Output = B>>,
) -> (Ended<A>, Ended<B>) {
    let mut ended_a = ready(first_a, || a_at);
    let mut ended_b = ready(first_b, || b_at);
    while ended_a.is_none() || ended_b.is_none() {
        poll_fn(|context| {
            poll_timed(clock, a.as_mut(), &mut ended_a, context);
            poll_timed(clock, b.as_mut(), &mut ended_b, context);
            if ended_a.is_some() && ended_b.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
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
    ended: &mut Option<Ended<F::Output>>,
    context: &mut Context<'_>,
) {
    if ended.is_none() {
        *ended = ready(future.poll(context), || clock.tick());
    }
}

fn ready<T>(polled: Poll<T>, at: impl FnOnce() -> Tick) -> Option<Ended<T>> {
    match polled {
        Poll::Ready(output) => Some((output, at())),
        Poll::Pending => None,
    }
}
