//! Off the caller's path: the caller waits for control alone, the rest goes on behind.

use std::{future::Future, pin::pin, sync::Arc};

use tokio::{runtime::Handle, sync::oneshot, task::JoinHandle};

use crate::{
    Capture, Experiment, Place, Start,
    admit::{Offered, Run, Slot},
    apart::apart,
    contain::Contained,
    desk::{Posted, Ring},
    execute::{Awaits, Blocks, Executes, Hold},
    experiment::Inner,
    follow::{ControlSource, Follower},
    ledger::Bin,
    meter::{metered, metered_sync},
    reread::Again,
    runtime::CandidateHandle,
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
        let (key, candidate) = (key.as_ref(), Contained::new(candidate));
        match self.draw_one(key) {
            Draw::Bare | Draw::ForcedName => control().await,
            draw => apart(pin!(self.run_drawn(draw, key, control, candidate, || None))).await,
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
        let candidate = Contained::new(candidate);
        match self.draw_one(key.as_ref()) {
            Draw::Bare | Draw::ForcedName => control().await,
            draw => {
                let (control, candidate) = (Arc::new(control), Arc::new(candidate));
                let (old, new) = (control.clone(), candidate.clone());
                let again = move || {
                    Some(Again {
                        control: Arc::new(move || Box::pin(old())),
                        candidate: Arc::new(move || Box::pin(new.get()())),
                    })
                };
                let candidate = Contained::new(move || candidate.get()());
                apart(pin!(self.run_drawn(draw, key.as_ref(), || control(), candidate, again))).await
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
        let candidate = Contained::new(candidate);
        match self.draw_one(key.as_ref()) {
            Draw::ForcedCandidate => candidate.into_inner()(),
            Draw::Sampled => match self.enter(key.as_ref(), Blocks(candidate)) {
                Some((room, runs)) => self.run_behind_sync(key.as_ref(), control, room, runs),
                None => control(),
            },
            Draw::Bare | Draw::ForcedName => control(),
        }
    }

    async fn run_drawn<C, CF, N, NF>(
        &self,
        draw: Draw,
        key: &[u8],
        control: C,
        candidate: Contained<N>,
        again: impl FnOnce() -> Option<Again<V, E>>,
    ) -> Result<V, E>
    where
        C: FnOnce() -> CF,
        CF: Future<Output = Result<V, E>>,
        N: FnOnce() -> NF + Send + 'static,
        NF: Future<Output = Result<V, E>> + Send + 'static,
    {
        if draw == Draw::ForcedCandidate {
            return candidate.into_inner()().await;
        }
        match self.enter(key, Awaits(candidate)) {
            Some((room, runs)) => self.run_behind(key, control, room, runs, again).await,
            None => control().await,
        }
    }

    /// Room and leave for a call with one candidate: all that it needs, or nothing.
    fn enter<B>(&self, key: &[u8], build: B) -> Option<Entered<V, E, L, [Run<B>; 1]>> {
        let inner = &self.inner;
        let only = &inner.roster.only;
        let Some(room) = Room::take(inner) else {
            only.ledger.refuse(Bin::Shed);
            return None;
        };
        let ticket = inner.open(only, only.ledger.open(), key, &inner.decide(key))?;
        Some((room, [Run { named: None, ticket, build }]))
    }

    /// As [`enter`](Self::enter), with several, of which some may be left.
    pub(crate) fn enter_all<B>(
        &self,
        key: &[u8],
        offered: Vec<Offered<B>>,
    ) -> Option<Entered<V, E, L, Vec<Run<B>>>> {
        let Some(room) = Room::take(&self.inner) else {
            offered.iter().for_each(|offered| offered.candidate.ledger.refuse(Bin::Shed));
            return None;
        };
        let mut runs = self.inner.open_all(offered, key);
        fastrand::shuffle(&mut runs);
        (!runs.is_empty()).then_some((room, runs))
    }

    /// Control on the caller's path, and the candidates behind it.
    pub(crate) async fn run_behind<C, CF, B, R>(
        &self,
        key: &[u8],
        control: C,
        room: Room<V, E, L>,
        mut runs: R,
        again: impl FnOnce() -> Option<Again<V, E>>,
    ) -> Result<V, E>
    where
        C: FnOnce() -> CF,
        CF: Future<Output = Result<V, E>>,
        B: Executes<V, E, L>,
        R: Runs<B>,
    {
        let inner = &self.inner;
        let subject = inner.subject(key);
        let Room { hold, current } = room;
        match inner.start {
            Start::AfterControl => {
                let began = inner.clock.tick();
                let (outcome, cpu) = metered(inner.measures_cpu, control()).await;
                let wall_ns = inner.clock.between(began, inner.clock.tick());
                let control = ControlSource::Ended(inner.keep(&outcome, wall_ns, cpu));
                cut_off(&mut runs);
                let follower = Follower { inner: inner.clone(), subject, hold, control };
                let task = inner.hand_over(current, follower, runs, again());
                inner.raise(task).await;
                outcome
            }
            Start::WithControl => {
                let (send, receive) = oneshot::channel();
                let control_source = ControlSource::Running(receive);
                cut_off(&mut runs);
                let follower = Follower { inner: inner.clone(), subject, hold, control: control_source };
                let task = inner.hand_over(current, follower, runs, again());
                let began = inner.clock.tick();
                let (outcome, cpu) = metered(inner.measures_cpu, control()).await;
                let wall_ns = inner.clock.between(began, inner.clock.tick());
                // Refused only where the runtime has dropped the candidates' task.
                let _ = send.send(inner.keep(&outcome, wall_ns, cpu));
                inner.raise(task).await;
                outcome
            }
        }
    }

    /// As [`run_behind`](Self::run_behind), of code that does not await.
    pub(crate) fn run_behind_sync<C, B, R>(
        &self,
        key: &[u8],
        control: C,
        room: Room<V, E, L>,
        mut runs: R,
    ) -> Result<V, E>
    where
        C: FnOnce() -> Result<V, E>,
        B: Executes<V, E, L>,
        R: Runs<B>,
    {
        let inner = &self.inner;
        let subject = inner.subject(key);
        let Room { hold, current } = room;
        let began = inner.clock.tick();
        let (outcome, cpu) = metered_sync(inner.measures_cpu, control);
        let wall_ns = inner.clock.between(began, inner.clock.tick());
        let control = ControlSource::Ended(inner.keep(&outcome, wall_ns, cpu));
        cut_off(&mut runs);
        let follower = Follower { inner: inner.clone(), subject, hold, control };
        drop(inner.hand_over(current, follower, runs, None));
        outcome
    }
}

/// Room for a call, and those of its candidates that are to run.
type Entered<V, E, L, R> = (Room<V, E, L>, R);

/// The candidates of one call that are to run, in their order: one in an array, or several.
pub(crate) trait Runs<B>:
    AsMut<[Run<B>]> + IntoIterator<Item = Run<B>, IntoIter: Send> + Send + 'static
{
}

impl<B, R> Runs<B> for R where
    R: AsMut<[Run<B>]> + IntoIterator<Item = Run<B>, IntoIter: Send> + Send + 'static
{
}

/// From here on, what is cut off was shed.
fn cut_off<B>(runs: &mut impl AsMut<[Run<B>]>) {
    runs.as_mut().iter_mut().for_each(|run| run.ticket.entry.when_cut_off(Bin::Shed));
}

/// What a call off the caller's path takes up.
pub(crate) struct Room<V, E, L: Capture<V>>
where
    V: 'static,
{
    hold: Hold<V, E, L>,
    /// The caller's runtime, where candidates run there.
    current: Option<Handle>,
}

impl<V, E, L: Capture<V>> Room<V, E, L> {
    /// Room for one more call, or nothing: hooks are for calls that run. On most calls beside a slow candidate there is none,
    /// so all is looked at before anything is taken: reading what nobody writes costs a caller nothing.
    fn take(inner: &Arc<Inner<V, E, L>>) -> Option<Self> {
        let threads = match &inner.runtime {
            Some(Place::Own(own)) => Some(&own.threads),
            Some(Place::Shared(_)) | None => None,
        };
        if inner.slots.are_taken() || threads.is_some_and(|threads| threads.are_taken()) {
            return None;
        }
        let current = match inner.runtime {
            None => Some(Handle::try_current().ok()?),
            Some(_) => None,
        };
        let slot = Some(Slot::take(inner)?);
        let permit = match threads {
            Some(threads) => Some(threads.try_take()?),
            None => None,
        };
        Some(Self { hold: Hold { slot, permit }, current })
    }
}

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Inner<V, E, L> {
    /// Starts the task of a call's candidates. Waking a thread of another runtime costs a system call, more than all else
    /// that the caller does here: so it leaves the task on a desk, or to its own runtime for when it awaits.
    fn hand_over<B, R>(
        &self,
        current: Option<Handle>,
        follower: Follower<V, E, L>,
        runs: R,
        again: Option<Again<V, E>>,
    ) -> Option<JoinHandle<Option<String>>>
    where
        B: Executes<V, E, L>,
        R: Runs<B>,
    {
        let runtime = match (&current, &self.runtime) {
            (Some(current), _) | (None, Some(Place::Shared(current))) => current,
            (None, Some(Place::Own(own))) if self.raises => &own.runtime,
            (None, Some(Place::Own(own))) => {
                self.leave_on_desk(own, follower, runs, again);
                return None;
            }
            (None, None) => unreachable!("without a runtime there is no room"),
        };
        let task = follower.follow(runs, again);
        if self.raises {
            return Some(runtime.spawn(task));
        }
        let others = || Handle::try_current().ok().filter(|callers| callers.id() != runtime.id());
        match if current.is_some() { None } else { others() } {
            Some(callers) => {
                let runtime = runtime.clone();
                drop(callers.spawn(async move { drop(runtime.spawn(task)) }));
            }
            None => drop(runtime.spawn(task)),
        }
        None
    }

    fn leave_on_desk<B, R>(
        &self,
        own: &CandidateHandle,
        follower: Follower<V, E, L>,
        runs: R,
        again: Option<Again<V, E>>,
    ) where
        B: Executes<V, E, L>,
        R: Runs<B>,
    {
        let posted = own.desk.post(Box::new(move |runtime| {
            drop(runtime.spawn(follower.follow(runs, again)));
        }));
        let is_hasty = self.start == Start::WithControl && posted == Posted::Seen;
        if posted == Posted::Unseen || is_hasty {
            let ring = Ring(own.desk.clone());
            match Handle::try_current() {
                Ok(callers) => drop(callers.spawn(async move { drop(ring) })),
                Err(_) => drop(ring),
            }
        }
    }

    /// Where the experiment raises, for tests: waits for the candidate, and panics with what it has to say.
    async fn raise(&self, task: Option<JoinHandle<Option<String>>>) {
        if let Some(task) = task
            && let Ok(Some(mismatch)) = task.await
        {
            panic!("{mismatch}");
        }
    }
}
