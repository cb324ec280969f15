//! Several candidates in one call, and calls without a control.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::sync::{oneshot, watch};

use crate::{
    Capture, Error, Experiment, Start,
    admit::{Decision, Slot, Subject, Ticket},
    execute::{Hold, NoThread},
    experiment::Inner,
    follow::{About, ControlSource},
    ledger::Bin,
    meter::metered,
    roster::Candidate,
    sample::Draw,
};

type Boxed<V, E> = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<V, E>> + Send>> + Send>;

/// One call with any number of named candidates; see [`Experiment::trial`].
#[must_use = "a trial does nothing until it is run"]
pub struct Trial<V, E, L: Capture<V>>
where
    V: 'static,
{
    inner: Arc<Inner<V, E, L>>,
    state: State<V, E, L>,
}

enum State<V, E, L: Capture<V>>
where
    V: 'static,
{
    Bare,
    Forced(Option<Boxed<V, E>>),
    Sampled { key: Box<[u8]>, decision: Decision, slot: Option<Slot<V, E, L>>, runs: Vec<Run<V, E>> },
}

/// One candidate of a call.
struct Run<V, E> {
    candidate: Arc<Candidate>,
    ticket: Ticket,
    build: Boxed<V, E>,
}

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Experiment<V, E, L> {
    /// Begins a call with any number of named candidates. They run off the caller's path, one after the other
    /// in random order, within one slot; each has an account and a breaker of its own.
    ///
    /// ```
    /// # use crossfade_experiment::{Experiment, Sampling};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let price: Experiment<u64, std::io::Error> =
    ///     Experiment::builder("price").sampling(Sampling::Always).build()?;
    /// let value = price
    ///     .trial("sku-1")
    ///     .candidate("sql", || async { Ok(100) })
    ///     .candidate("cache", || async { Ok(101) })
    ///     .run(|| async { Ok(100) })
    ///     .await?;
    /// assert_eq!(value, 100);
    /// # Ok(())
    /// # }
    /// ```
    pub fn trial(&self, key: impl AsRef<[u8]>) -> Trial<V, E, L> {
        let key = key.as_ref();
        let state = match self.draw(key) {
            Draw::Bare => State::Bare,
            Draw::ForcedCandidate => State::Forced(None),
            Draw::Sampled => {
                let (decision, slot) = self.enter_off_path(key);
                State::Sampled { key: key.into(), decision, slot, runs: Vec::new() }
            }
        };
        Trial { inner: self.inner.clone(), state }
    }

    /// Begins a call without a control: the branch called `answer` answers the caller, and the others are
    /// compared with it. Which one that is may be decided as late as here.
    pub fn choose(&self, key: impl AsRef<[u8]>, answer: impl Into<String>) -> Choice<V, E, L> {
        let mut trial = self.trial(key);
        if matches!(trial.state, State::Forced(_)) {
            // The answer is forced already.
            trial.state = State::Bare;
        }
        Choice { trial, answer: answer.into(), chosen: None }
    }
}

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Trial<V, E, L> {
    /// Adds a candidate. If the call is not sampled, it is dropped here, unbuilt and unboxed.
    pub fn candidate<N, F>(mut self, name: &str, candidate: N) -> Self
    where
        N: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let boxed = || -> Boxed<V, E> { Box::new(move || Box::pin(candidate())) };
        match &mut self.state {
            State::Bare | State::Forced(Some(_)) => {}
            State::Forced(first @ None) => *first = Some(boxed()),
            State::Sampled { key, decision, runs, .. } => {
                let candidate = self.inner.roster.named(name);
                if let Some(ticket) = self.inner.open(&candidate, candidate.ledger.open(), key, decision) {
                    runs.push(Run { candidate, ticket, build: boxed() });
                }
            }
        }
        self
    }

    /// Runs control, and the candidates behind it.
    ///
    /// # Errors
    /// Control's, unchanged.
    pub async fn run<C, CF>(self, control: C) -> Result<V, E>
    where
        C: FnOnce() -> CF,
        CF: Future<Output = Result<V, E>>,
    {
        let Self { inner, state } = self;
        let (key, slot, mut runs) = match state {
            State::Sampled { key, slot, runs, .. } if !runs.is_empty() => (key, slot, runs),
            State::Forced(Some(first)) => return first().await,
            State::Bare | State::Forced(None) | State::Sampled { .. } => return control().await,
        };
        fastrand::shuffle(&mut runs);
        let Some((runtime, permit, stop)) = inner.place(&mut runs[0].ticket) else {
            cut_off(&mut runs);
            return control().await;
        };
        let subject = inner.subject(&key);
        match inner.start {
            Start::AfterControl => {
                let began = inner.clock.tick();
                let (outcome, cpu) = metered(inner.measures_cpu, control()).await;
                let wall_ns = inner.clock.between(began, inner.clock.tick());
                let kept = ControlSource::Ended(inner.keep(&outcome, wall_ns, cpu));
                cut_off(&mut runs);
                let hold = Hold { slot, permit };
                let task = inner.spawn(runtime, follow_all(inner.clone(), subject, hold, stop, kept, runs));
                inner.raise(task).await;
                outcome
            }
            Start::WithControl => {
                let (send, receive) = oneshot::channel();
                cut_off(&mut runs);
                let kept = ControlSource::Running(receive);
                let hold = Hold { slot, permit };
                let task = inner.spawn(runtime, follow_all(inner.clone(), subject, hold, stop, kept, runs));
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
}

/// One call without a control; see [`Experiment::choose`].
#[must_use = "a choice does nothing until it is run"]
pub struct Choice<V, E, L: Capture<V>>
where
    V: 'static,
{
    trial: Trial<V, E, L>,
    answer: String,
    chosen: Option<Boxed<V, E>>,
}

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Choice<V, E, L> {
    /// Adds a branch.
    pub fn branch<N, F>(mut self, name: &str, branch: N) -> Self
    where
        N: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        if name == self.answer {
            self.chosen = Some(Box::new(move || Box::pin(branch())));
        } else {
            self.trial = self.trial.candidate(name, branch);
        }
        self
    }

    /// Runs the branch that answers, and the others behind it. The outer error is the programmer's, the inner
    /// one the branch's.
    ///
    /// # Errors
    /// [`Error::NoBranch`] where no branch has the name that was chosen; none has run then.
    pub async fn run(self) -> Result<Result<V, E>, Error> {
        let Some(chosen) = self.chosen else {
            let experiment = self.trial.inner.name.to_string();
            return Err(Error::NoBranch { experiment, branch: self.answer });
        };
        Ok(self.trial.run(chosen).await)
    }
}

/// From here on, what is cut off was shed.
fn cut_off<V, E>(runs: &mut [Run<V, E>]) {
    runs.iter_mut().for_each(|run| run.ticket.entry.when_cut_off(Bin::Shed));
}

/// The candidates of one call, one after the other: several must not be a burst. They share the call's slot.
async fn follow_all<V, E, L>(
    inner: Arc<Inner<V, E, L>>,
    subject: Subject,
    hold: Hold<V, E, L>,
    mut stop: watch::Receiver<bool>,
    control: ControlSource<L::Observed>,
    runs: Vec<Run<V, E>>,
) -> Option<String>
where
    V: Send + 'static,
    E: Send + 'static,
    L: Capture<V>,
{
    let Hold { slot: _slot, permit } = hold;
    let mut first = Some(permit);
    let mut source = control;
    let mut first_raised = None;
    for Run { candidate, mut ticket, build } in runs {
        let permit = match first.take() {
            Some(permit) => permit,
            None => match inner.thread().await {
                Ok(permit) => permit,
                Err(NoThread) => {
                    ticket.entry.settle(Bin::Shed);
                    continue;
                }
            },
        };
        let (ran, _) = inner.execute(&mut stop, build, Hold { slot: None, permit }).await;
        let control = source.ended().await;
        let about = About { candidate: &candidate, subject: &subject, again: None };
        let (control, raised) = inner.conclude(&about, ticket, control, ran, None, &mut stop).await;
        source = ControlSource::Ended(control);
        first_raised = first_raised.or(raised);
    }
    first_raised
}
