//! Off the caller's path: the caller waits for control alone, the rest goes on behind.

use std::{future::Future, sync::Arc};

use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::{
    Capture, Experiment, Start,
    admit::Ticket,
    experiment::Inner,
    follow::{ControlSource, follow},
    ledger::Bin,
    meter::{metered, metered_sync},
    reread::Again,
    sample::Draw,
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
                        control: Box::new(move || Box::pin(old())),
                        candidate: Box::new(move || Box::pin(new())),
                    })
                };
                self.run_behind(key.as_ref(), || control(), move || candidate(), again).await
            }
        }
    }

    /// As [`run`](Self::run), for code that blocks instead of awaiting: the candidate runs on the blocking
    /// threads of the runtime, and starts when control has ended. One that outlasts its timeout is given
    /// up, but holds its slot until its thread is free again.
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
        let (decision, slot) = self.enter_off_path(key);
        let (Some(mut ticket), slot @ Some(_)) = (inner.open_only(key, &decision), slot) else {
            return control().await;
        };
        let Some((runtime, stop)) = inner.place(&mut ticket) else {
            return control().await;
        };
        let subject = inner.subject(key);
        let owned = inner.clone();
        match inner.start {
            Start::AfterControl => {
                let began = inner.clock.tick();
                let (outcome, cpu) = metered(inner.measures_cpu, control()).await;
                let wall_ns = inner.clock.between(began, inner.clock.tick());
                let kept = ControlSource::Ended(inner.keep(&outcome, wall_ns, cpu));
                ticket.entry.when_cut_off(Bin::Shed);
                let task = follow(owned, ticket, subject, slot, stop, kept, candidate, again());
                inner.raise(runtime.spawn(task)).await;
                outcome
            }
            Start::WithControl => {
                let (send, receive) = oneshot::channel();
                let kept = ControlSource::Running(receive);
                ticket.entry.when_cut_off(Bin::Shed);
                let task =
                    runtime.spawn(follow(owned, ticket, subject, slot, stop, kept, candidate, again()));
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
        let (decision, slot) = self.enter_off_path(key);
        let (Some(mut ticket), Some(slot)) = (inner.open_only(key, &decision), slot) else {
            return control();
        };
        let Some((runtime, stop)) = inner.place(&mut ticket) else {
            return control();
        };
        let subject = inner.subject(key);
        let began = inner.clock.tick();
        let (outcome, cpu) = metered_sync(inner.measures_cpu, control);
        let wall_ns = inner.clock.between(began, inner.clock.tick());
        let kept = ControlSource::Ended(inner.keep(&outcome, wall_ns, cpu));
        ticket.entry.when_cut_off(Bin::Shed);

        // The slot goes with the thread, which may outlast the timeout; the task gets one of its own making.
        let (send, receive) = oneshot::channel();
        let blocking = runtime.clone();
        let candidate = move || async move {
            blocking.spawn_blocking(move || {
                let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(candidate));
                // Refused only where the task has given up waiting.
                let _ = send.send(caught);
                drop(slot);
            });
            match receive.await {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(_) => std::future::pending().await,
            }
        };
        runtime.spawn(follow(inner.clone(), ticket, subject, None, stop, kept, candidate, None));
        outcome
    }
}

impl<V, E, L: Capture<V>> Inner<V, E, L> {
    /// Where the candidate is to run, with its view of shutdowns; without a runtime the call is shed.
    pub(crate) fn place(&self, ticket: &mut Ticket) -> Option<(Handle, watch::Receiver<bool>)> {
        let Some(runtime) = self.runtime.clone().or_else(|| Handle::try_current().ok()) else {
            ticket.entry.settle(Bin::Shed);
            return None;
        };
        Some((runtime, self.stop.subscribe()))
    }

    /// Where the experiment raises, for tests: waits for the candidate, and panics with what it has to say.
    pub(crate) async fn raise(&self, task: JoinHandle<Option<String>>) {
        if !self.raises {
            return;
        }
        if let Ok(Some(mismatch)) = task.await {
            panic!("{mismatch}");
        }
    }
}
