//! Off the caller's path: the caller waits for control alone, the rest goes on behind.

use std::{future::Future, sync::Arc};

use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::{
    Capture, Experiment, Place, Start,
    admit::Ticket,
    execute::Hold,
    experiment::Inner,
    follow::{ControlSource, Follower},
    ledger::Bin,
    meter::{metered, metered_sync},
    reread::Again,
    sample::Draw,
    seat::Permit,
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
        match self.draw(key.as_ref()) {
            Draw::Bare => control().await,
            Draw::ForcedCandidate => candidate().await,
            Draw::Sampled => self.run_behind(key.as_ref(), control, candidate, || None).await,
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
        match self.draw(key.as_ref()) {
            Draw::Bare => control().await,
            Draw::ForcedCandidate => candidate().await,
            Draw::Sampled => {
                let (control, candidate) = (Arc::new(control), Arc::new(candidate));
                let (old, new) = (control.clone(), candidate.clone());
                let again = move || {
                    Some(Again {
                        control: Arc::new(move || Box::pin(old())),
                        candidate: Arc::new(move || Box::pin(new())),
                    })
                };
                self.run_behind(key.as_ref(), || control(), move || candidate(), again).await
            }
        }
    }

    /// As [`run`](Self::run), for code that blocks instead of awaiting: the candidate runs on the blocking
    /// threads of the runtime, and starts when control has ended. One that outlasts its timeout is given
    /// up; on a shared runtime it holds its slot until its thread is free again, on a
    /// [`CandidateRuntime`](crate::CandidateRuntime) another thread takes its place.
    ///
    /// # Errors
    /// Control's, unchanged.
    pub fn run_sync<C, N>(&self, key: impl AsRef<[u8]>, control: C, candidate: N) -> Result<V, E>
    where
        C: FnOnce() -> Result<V, E>,
        N: FnOnce() -> Result<V, E> + Send + 'static,
    {
        match self.draw(key.as_ref()) {
            Draw::Bare => control(),
            Draw::ForcedCandidate => candidate(),
            Draw::Sampled => self.run_sync_behind(key.as_ref(), control, candidate),
        }
    }

    async fn run_behind<C, CF, N, NF>(
        &self,
        key: &[u8],
        control: C,
        candidate: N,
        again: impl FnOnce() -> Option<Again<V, E>>,
    ) -> Result<V, E>
    where
        C: FnOnce() -> CF,
        CF: Future<Output = Result<V, E>>,
        N: FnOnce() -> NF + Send + 'static,
        NF: Future<Output = Result<V, E>> + Send + 'static,
    {
        let inner = &self.inner;
        let Some(Entered { ticket, hold, runtime, stop }) = self.enter(key) else {
            return control().await;
        };
        let subject = inner.subject(key);
        let follower =
            |ticket: Ticket, control| Follower { inner: inner.clone(), ticket, subject, hold, stop, control };
        let mut ticket = ticket;
        match inner.start {
            Start::AfterControl => {
                let began = inner.clock.tick();
                let (outcome, cpu) = metered(inner.measures_cpu, control()).await;
                let wall_ns = inner.clock.between(began, inner.clock.tick());
                let kept = ControlSource::Ended(inner.keep(&outcome, wall_ns, cpu));
                ticket.entry.when_cut_off(Bin::Shed);
                let task = inner.spawn(runtime, follower(ticket, kept).follow(candidate, again()));
                inner.raise(task).await;
                outcome
            }
            Start::WithControl => {
                let (send, receive) = oneshot::channel();
                let kept = ControlSource::Running(receive);
                ticket.entry.when_cut_off(Bin::Shed);
                let task = inner.spawn(runtime, follower(ticket, kept).follow(candidate, again()));
                let began = inner.clock.tick();
                let (outcome, cpu) = metered(inner.measures_cpu, control()).await;
                let wall_ns = inner.clock.between(began, inner.clock.tick());
                // Refused only where the runtime has dropped the candidate's task.
                let _ = send.send(inner.keep(&outcome, wall_ns, cpu));
                inner.raise(task).await;
                outcome
            }
        }
    }

    fn run_sync_behind<C, N>(&self, key: &[u8], control: C, candidate: N) -> Result<V, E>
    where
        C: FnOnce() -> Result<V, E>,
        N: FnOnce() -> Result<V, E> + Send + 'static,
    {
        let inner = &self.inner;
        let Some(Entered { mut ticket, hold, runtime, stop }) = self.enter(key) else {
            return control();
        };
        let subject = inner.subject(key);
        let began = inner.clock.tick();
        let (outcome, cpu) = metered_sync(inner.measures_cpu, control);
        let wall_ns = inner.clock.between(began, inner.clock.tick());
        let control = ControlSource::Ended(inner.keep(&outcome, wall_ns, cpu));
        ticket.entry.when_cut_off(Bin::Shed);
        let follower = Follower { inner: inner.clone(), ticket, subject, hold, stop, control };
        runtime.spawn(follower.follow_sync(runtime.clone(), candidate));
        outcome
    }

    /// Leave for a call with one candidate: all that it needs, or nothing.
    fn enter(&self, key: &[u8]) -> Option<Entered<V, E, L>> {
        let inner = &self.inner;
        let (decision, slot) = self.enter_off_path(key);
        let mut ticket = inner.open_only(key, &decision)?;
        let slot = Some(slot?);
        let (runtime, permit, stop) = inner.place(&mut ticket)?;
        Some(Entered { ticket, hold: Hold { slot, permit }, runtime, stop })
    }
}

struct Entered<V, E, L: Capture<V>>
where
    V: 'static,
{
    ticket: Ticket,
    hold: Hold<V, E, L>,
    runtime: Handle,
    stop: watch::Receiver<bool>,
}

impl<V, E, L: Capture<V>> Inner<V, E, L> {
    /// Where the candidate's task is to run, with a thread for the candidate where it has its own, and its view
    /// of shutdowns. Without a runtime, or without a thread that is free, the call is shed.
    pub(crate) fn place(
        &self,
        ticket: &mut Ticket,
    ) -> Option<(Handle, Option<Permit>, watch::Receiver<bool>)> {
        let placed = match &self.runtime {
            Some(Place::Own(own)) => own.threads.try_take().map(|permit| (own.runtime.clone(), Some(permit))),
            Some(Place::Shared(runtime)) => Some((runtime.clone(), None)),
            None => Handle::try_current().ok().map(|runtime| (runtime, None)),
        };
        let Some((runtime, permit)) = placed else {
            ticket.entry.settle(Bin::Shed);
            return None;
        };
        Some((runtime, permit, self.stop.subscribe()))
    }

    /// Starts a candidate's task from async code. Waking a thread of another runtime costs a system call, more than
    /// all else that the caller does here: a task on the caller's own runtime does it, when the caller awaits.
    pub(crate) fn spawn(
        &self,
        runtime: Handle,
        task: impl Future<Output = Option<String>> + Send + 'static,
    ) -> Option<JoinHandle<Option<String>>> {
        if self.raises {
            return Some(runtime.spawn(task));
        }
        let callers = match &self.runtime {
            None => None,
            Some(_) => Handle::try_current().ok().filter(|callers| callers.id() != runtime.id()),
        };
        match callers {
            Some(callers) => drop(callers.spawn(async move { drop(runtime.spawn(task)) })),
            None => drop(runtime.spawn(task)),
        }
        None
    }

    /// Where the experiment raises, for tests: waits for the candidate, and panics with what it has to say.
    pub(crate) async fn raise(&self, task: Option<JoinHandle<Option<String>>>) {
        if let Some(task) = task
            && let Ok(Some(mismatch)) = task.await
        {
            panic!("{mismatch}");
        }
    }
}
