//! Runs a candidate within its bounds: where it awaits, or on a thread of its own.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use crate::{
    Capture, ErrorSummary, HookFailure, Outcome, Place, Seen, View,
    admit::Slot,
    clock::Clock,
    contain::{Caught, Contained, caught, caught_sync, drop_contained},
    experiment::Inner,
    hooks::panic_message,
    meter::{metered, metered_sync},
    reread::Reread,
    seat::{Permit, Seat, Sitter, Threads},
    sketch::nanoseconds,
};

/// How a candidate ended.
pub(crate) enum Ended<V> {
    Value(Contained<V>),
    Error(ErrorSummary),
    Panicked(String),
    TimedOut,
    /// The process is shutting down.
    Stopped,
}

/// A candidate that has ended, and what that took.
pub(crate) struct Ran<V> {
    pub(crate) ended: Ended<V>,
    pub(crate) wall_ns: u64,
    pub(crate) cpu: Option<Duration>,
    pub(crate) failures: Vec<HookFailure>,
}

/// What a candidate takes up while it runs.
pub(crate) struct Hold<V, E, L: View<V>>
where
    V: 'static,
{
    /// `None` where the slot is somebody else's to give back.
    pub(crate) slot: Option<Slot<V, E, L>>,
    /// A thread of its own, where candidates have such.
    pub(crate) permit: Option<Permit>,
}

/// A candidate's end, as it was measured where it ran.
struct Measured<T> {
    output: Caught<T>,
    wall_ns: u64,
    cpu: Option<Duration>,
}

/// No thread was free in time.
pub(crate) struct NoThread;

/// A candidate off the caller's path, and how it is run there.
pub(crate) trait Executes<V, E, L>: Send + 'static
where
    V: Send + 'static,
    E: Send + 'static,
    L: Capture<V>,
{
    /// Runs it within its bounds; gives back the slot, unless the candidate still has it.
    fn execute(
        self,
        inner: &Inner<V, E, L>,
        stop: &mut watch::Receiver<bool>,
        hold: Hold<V, E, L>,
    ) -> impl Future<Output = (Ran<V>, Option<Slot<V, E, L>>)> + Send;
}

/// A candidate that awaits.
pub(crate) struct Awaits<N>(pub(crate) Contained<N>);

impl<V, E, L, N, F> Executes<V, E, L> for Awaits<N>
where
    V: Send + 'static,
    E: Send + 'static,
    L: Capture<V>,
    N: FnOnce() -> F + Send + 'static,
    F: Future<Output = Result<V, E>> + Send + 'static,
{
    async fn execute(
        self,
        inner: &Inner<V, E, L>,
        stop: &mut watch::Receiver<bool>,
        hold: Hold<V, E, L>,
    ) -> (Ran<V>, Option<Slot<V, E, L>>) {
        inner.execute(stop, self.0, hold).await
    }
}

/// A candidate that blocks.
pub(crate) struct Blocks<N>(pub(crate) Contained<N>);

impl<V, E, L, N> Executes<V, E, L> for Blocks<N>
where
    V: Send + 'static,
    E: Send + 'static,
    L: Capture<V>,
    N: FnOnce() -> Result<V, E> + Send + 'static,
{
    async fn execute(
        self,
        inner: &Inner<V, E, L>,
        stop: &mut watch::Receiver<bool>,
        hold: Hold<V, E, L>,
    ) -> (Ran<V>, Option<Slot<V, E, L>>) {
        inner.execute_sync(stop, self.0, hold).await
    }
}

/// From the candidate's thread: how it ended, and the slot, unless that was given up.
type Reply<V, E, L> = (Measured<Result<V, E>>, Option<Slot<V, E, L>>);

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Inner<V, E, L> {
    /// Runs a candidate; gives back the slot, unless the candidate still has it.
    pub(crate) async fn execute<N, F>(
        &self,
        stop: &mut watch::Receiver<bool>,
        candidate: Contained<N>,
        hold: Hold<V, E, L>,
    ) -> (Ran<V>, Option<Slot<V, E, L>>)
    where
        N: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send,
    {
        let Some(Place::Own(own)) = &self.runtime else {
            let run = async { Some(measure(&self.clock, self.measures_cpu, candidate).await) };
            return (self.within_bounds(stop, run).await, hold.slot);
        };
        let (clock, measures_cpu, runtime) = (self.clock.clone(), self.measures_cpu, own.runtime.clone());
        let job = move |reply: &mut oneshot::Sender<Reply<V, E, L>>| {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = reply.closed() => None,
                    measured = measure(&clock, measures_cpu, candidate) => Some(measured),
                }
            })
        };
        // Boxed, as everything that is not on the common path: the task is moved on the caller's time.
        Box::pin(self.on_thread(stop, &own.runtime, Some(own.threads.clone()), hold, job)).await
    }

    /// As [`execute`](Self::execute), for a candidate that blocks: it has one of the blocking threads.
    pub(crate) async fn execute_sync<N>(
        &self,
        stop: &mut watch::Receiver<bool>,
        candidate: Contained<N>,
        hold: Hold<V, E, L>,
    ) -> (Ran<V>, Option<Slot<V, E, L>>)
    where
        N: FnOnce() -> Result<V, E> + Send + 'static,
    {
        let (clock, measures_cpu) = (self.clock.clone(), self.measures_cpu);
        let job = move |reply: &mut oneshot::Sender<Reply<V, E, L>>| {
            // On a shared runtime it may have waited for a thread until nobody waited for it.
            if reply.is_closed() {
                return None;
            }
            let began = clock.tick();
            let (output, cpu) = metered_sync(measures_cpu, || caught_sync(candidate));
            Some(Measured { output, wall_ns: clock.between(began, clock.tick()), cpu })
        };
        let threads = match &self.runtime {
            Some(Place::Own(own)) => Some(own.threads.clone()),
            _ => None,
        };
        self.on_thread(stop, &Handle::current(), threads, hold, job).await
    }

    /// Reads one side once more, where candidates run.
    pub(crate) async fn reread(
        &self,
        side: &Reread<V, E>,
        stop: &mut watch::Receiver<bool>,
        failures: &mut Vec<HookFailure>,
    ) -> Ended<V> {
        let Ok(permit) = self.thread().await else {
            return Ended::TimedOut;
        };
        let side = side.clone();
        let (ran, _) = self.execute(stop, Contained::new(move || side()), Hold { slot: None, permit }).await;
        failures.extend(ran.failures);
        ran.ended
    }

    /// Waits for a thread, where candidates have threads of their own, as long as a candidate may take.
    pub(crate) async fn thread(&self) -> Result<Option<Permit>, NoThread> {
        let Some(Place::Own(own)) = &self.runtime else {
            return Ok(None);
        };
        match tokio::time::timeout(self.limits.timeout, own.threads.take()).await {
            Ok(Some(permit)) => Ok(Some(permit)),
            Ok(None) | Err(_) => Err(NoThread),
        }
    }

    async fn on_thread<J>(
        &self,
        stop: &mut watch::Receiver<bool>,
        runtime: &Handle,
        threads: Option<Arc<Threads>>,
        hold: Hold<V, E, L>,
        job: J,
    ) -> (Ran<V>, Option<Slot<V, E, L>>)
    where
        J: FnOnce(&mut oneshot::Sender<Reply<V, E, L>>) -> Option<Measured<Result<V, E>>> + Send + 'static,
    {
        let seat = Arc::new(Seat::new(threads, hold.permit, hold.slot));
        let sitter = Sitter(seat.clone());
        let (mut reply, mut answer) = oneshot::channel();
        runtime.spawn_blocking(move || {
            if let Some(measured) = job(&mut reply) {
                // Refused only where nobody waits any more: then the slot is given back here.
                let _ = reply.send((measured, sitter.0.leave()));
            }
        });
        let mut slot = None;
        let run = async {
            let (measured, left) = (&mut answer).await.ok()?;
            slot = left;
            Some(measured)
        };
        let ran = self.within_bounds(stop, run).await;
        if matches!(ran.ended, Ended::TimedOut | Ended::Stopped) {
            answer.close();
            seat.abandon();
        }
        (ran, slot)
    }

    /// Outlasts neither the timeout nor a shutdown. `run` gives `None` where the runtime has dropped the
    /// candidate.
    async fn within_bounds(
        &self,
        stop: &mut watch::Receiver<bool>,
        run: impl Future<Output = Option<Measured<Result<V, E>>>>,
    ) -> Ran<V> {
        let began = self.clock.tick();
        let measured = tokio::select! {
            biased;
            () = stopped(stop) => Ok(None),
            measured = tokio::time::timeout(self.limits.timeout, run) => measured,
        };
        let mut failures = Vec::new();
        let (ended, wall_ns, cpu) = match measured {
            Ok(None) => (Ended::Stopped, 0, None),
            Err(_) => (Ended::TimedOut, self.clock.between(began, self.clock.tick()), None),
            Ok(Some(Measured { output, wall_ns, cpu })) => {
                let ended = match output.into_inner() {
                    Err(panic) => Ended::Panicked(panic_message(panic)),
                    // One that keeps its thread past its time is found out only afterwards.
                    Ok(late) if wall_ns > nanoseconds(self.limits.timeout) => {
                        drop_contained(late);
                        Ended::TimedOut
                    }
                    Ok(Ok(value)) => Ended::Value(Contained::new(value)),
                    Ok(Err(error)) => {
                        let summary = self.summarize(&error, &mut failures);
                        drop_contained(error);
                        Ended::Error(summary)
                    }
                };
                (ended, wall_ns, cpu)
            }
        };
        Ran { ended, wall_ns, cpu, failures }
    }
}

impl<V> Ended<V> {
    pub(crate) fn seen(&self) -> Option<Seen<'_, V>> {
        match self {
            Self::Value(value) => Some(Ok(value.get())),
            Self::Error(error) => Some(Err(error)),
            Self::Panicked(_) | Self::TimedOut | Self::Stopped => None,
        }
    }

    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Value(_) => Outcome::Value,
            Self::Error(error) => Outcome::Error(error.clone()),
            Self::Panicked(message) => Outcome::Panicked(message.clone()),
            Self::TimedOut => Outcome::TimedOut,
            Self::Stopped => Outcome::Gone,
        }
    }
}

/// Ends when candidates are to stop; never where the experiment is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn measure<T, N, F>(clock: &Clock, measures_cpu: bool, candidate: Contained<N>) -> Measured<T>
where
    N: FnOnce() -> F,
    F: Future<Output = T>,
{
    let began = clock.tick();
    let (output, cpu) = metered(measures_cpu, caught(candidate)).await;
    Measured { output, wall_ns: clock.between(began, clock.tick()), cpu }
}
