//! Any number of named candidates in one call, in any mode.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    Capture, Choice, Experiment, View,
    admit::{Offered, Slot},
    contain::{Caught, Contained, caught, caught_sync},
    execute::{Executes, Hold, Ran},
    experiment::Inner,
    sample::Draw,
    turns::Turn,
};

/// One call with any number of named candidates; see [`Experiment::trial`]. `B` is how it runs them: [`Behind`],
/// [`BehindSync`], [`InLine`] or [`InLineSync`].
#[must_use = "a trial does nothing until it is run"]
pub struct Trial<'a, V, E, L: View<V>, B>
where
    V: 'static,
{
    pub(crate) experiment: &'a Experiment<V, E, L>,
    state: State<B>,
}

enum State<B> {
    /// Control alone.
    Bare,
    /// One candidate alone, by force: the first, or the one of that name.
    Forced {
        name: Option<Arc<str>>,
        found: Option<B>,
    },
    Sampled {
        key: Box<[u8]>,
        offered: Vec<Offered<B>>,
    },
}

type Awaiting<'a, V, E> =
    Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<V, E>> + Send + 'a>> + Send + 'a>;
type BlockingSend<V, E> = Box<dyn FnOnce() -> Result<V, E> + Send>;
type Blocking<'a, V, E> = Box<dyn FnOnce() -> Result<V, E> + 'a>;

/// A candidate that awaits, off the caller's path: of [`Experiment::trial`].
pub struct Behind<V, E>(Contained<Awaiting<'static, V, E>>);

/// A candidate that blocks, off the caller's path: of [`Experiment::trial_sync`].
pub struct BehindSync<V, E>(Contained<BlockingSend<V, E>>);

/// A candidate that awaits, in line: of [`Experiment::trial_in_line`].
pub struct InLine<'a, V, E>(Contained<Awaiting<'a, V, E>>);

/// A candidate that does not await, in line: of [`Experiment::trial_sync_in_line`].
pub struct InLineSync<'a, V, E>(Contained<Blocking<'a, V, E>>);

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
    pub fn trial(&self, key: impl AsRef<[u8]>) -> Trial<'_, V, E, L, Behind<V, E>> {
        Trial::new(self, key.as_ref())
    }

    /// As [`trial`](Self::trial), for code that blocks instead of awaiting; see [`run_sync`](Self::run_sync).
    pub fn trial_sync(&self, key: impl AsRef<[u8]>) -> Trial<'_, V, E, L, BehindSync<V, E>> {
        Trial::new(self, key.as_ref())
    }
}

impl<V: 'static, E: 'static, L: View<V>> Experiment<V, E, L> {
    /// As [`trial`](Self::trial), on the caller's task and in the experiment's [`Order`](crate::Order): control and then the
    /// candidates as they were given, all of them in random order, or all at once. The caller waits for each, up to
    /// [`in_line_timeout`](crate::Builder::in_line_timeout) where that is set. Candidates may borrow, and are [`Send`], so that a
    /// service's tasks may await the call.
    pub fn trial_in_line<'a>(&'a self, key: impl AsRef<[u8]>) -> Trial<'a, V, E, L, InLine<'a, V, E>> {
        Trial::new(self, key.as_ref())
    }

    /// As [`trial_in_line`](Self::trial_in_line), for code that does not await; see
    /// [`run_sync_in_line`](Self::run_sync_in_line).
    ///
    /// ```
    /// # use crossfade_experiment::{Experiment, Sampling};
    /// let price: Experiment<u64, std::io::Error> =
    ///     Experiment::builder("price").sampling(Sampling::Always).build()?;
    /// let book = vec![100, 101];
    /// let value = price
    ///     .trial_sync_in_line("sku-1")
    ///     .candidate("first", || Ok(book[0]))
    ///     .candidate("last", || Ok(book[1]))
    ///     .run(|| Ok(100))?;
    /// assert_eq!(value, 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn trial_sync_in_line<'a>(
        &'a self,
        key: impl AsRef<[u8]>,
    ) -> Trial<'a, V, E, L, InLineSync<'a, V, E>> {
        Trial::new(self, key.as_ref())
    }
}

impl<'a, V: 'static, E, L: View<V>, B> Trial<'a, V, E, L, B> {
    /// Makes it a call without a control: of the branches to come, the one called `answer` answers the caller, and the
    /// others are compared with it. Which one that is may be decided as late as here.
    ///
    /// ```
    /// # use crossfade_experiment::{Experiment, Sampling};
    /// # let price: Experiment<u64, std::io::Error> =
    /// #     Experiment::builder("price").sampling(Sampling::Always).build()?;
    /// let answer = if cfg!(debug_assertions) { "cache" } else { "sql" };
    /// let value = price
    ///     .trial_sync_in_line("sku-1")
    ///     .choose(answer)
    ///     .branch("sql", || Ok(100))
    ///     .branch("cache", || Ok(100))
    ///     .run()??;
    /// assert_eq!(value, 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn choose(mut self, answer: &'a str) -> Choice<'a, V, E, L, B> {
        if matches!(self.state, State::Forced { .. }) {
            // The answer is forced already.
            self.state = State::Bare;
        }
        Choice::new(self, answer)
    }

    fn new(experiment: &'a Experiment<V, E, L>, key: &[u8]) -> Self {
        let state = match experiment.draw(key) {
            Draw::Bare => State::Bare,
            Draw::ForcedCandidate => State::Forced { name: None, found: None },
            Draw::ForcedName => State::Forced { name: experiment.inner.forced_name(), found: None },
            Draw::Sampled => State::Sampled { key: key.into(), offered: Vec::new() },
        };
        Self { experiment, state }
    }

    /// If the call is not sampled, the candidate is dropped here, unbuilt and unboxed.
    fn offer<N>(mut self, name: &str, candidate: N, boxed: impl FnOnce(N) -> B) -> Self {
        let candidate = Contained::new(candidate);
        match &mut self.state {
            State::Forced { name: forced, found: found @ None }
                if forced.as_deref().is_none_or(|forced| forced == name) =>
            {
                *found = Some(boxed(candidate.into_inner()));
            }
            State::Bare | State::Forced { .. } => {}
            State::Sampled { offered, .. } => {
                let build = boxed(candidate.into_inner());
                offered.push(Offered { candidate: self.experiment.inner.roster.named(name), build });
            }
        }
        self
    }

    /// Nothing but the answer.
    pub(crate) fn alone(mut self) -> Self {
        self.state = State::Bare;
        self
    }
}

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Trial<'_, V, E, L, Behind<V, E>> {
    /// Adds a candidate. If the call is not sampled, it is dropped here, unbuilt and unboxed.
    pub fn candidate<N, F>(self, name: &str, candidate: N) -> Self
    where
        N: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        self.offer(name, candidate, |candidate| {
            Behind(Contained::new(Box::new(move || Box::pin(candidate()))))
        })
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
        match self.state {
            State::Bare | State::Forced { found: None, .. } => control().await,
            State::Forced { found: Some(found), .. } => found.0.into_inner()().await,
            State::Sampled { key, offered } => match self.experiment.enter_all(&key, offered) {
                Some((room, runs)) => self.experiment.run_behind(&key, control, room, runs, || None).await,
                None => control().await,
            },
        }
    }
}

impl<V: Send + 'static, E: Send + 'static, L: Capture<V>> Trial<'_, V, E, L, BehindSync<V, E>> {
    /// Adds a candidate. If the call is not sampled, it is dropped here, unboxed.
    pub fn candidate<N>(self, name: &str, candidate: N) -> Self
    where
        N: FnOnce() -> Result<V, E> + Send + 'static,
    {
        self.offer(name, candidate, |candidate| BehindSync(Contained::new(Box::new(candidate))))
    }

    /// Runs control, and the candidates behind it.
    ///
    /// # Errors
    /// Control's, unchanged.
    pub fn run<C>(self, control: C) -> Result<V, E>
    where
        C: FnOnce() -> Result<V, E>,
    {
        match self.state {
            State::Bare | State::Forced { found: None, .. } => control(),
            State::Forced { found: Some(found), .. } => found.0.into_inner()(),
            State::Sampled { key, offered } => match self.experiment.enter_all(&key, offered) {
                Some((room, runs)) => self.experiment.run_behind_sync(&key, control, room, runs),
                None => control(),
            },
        }
    }
}

impl<'a, V: 'static, E: 'static, L: View<V>> Trial<'a, V, E, L, InLine<'a, V, E>> {
    /// Adds a candidate. If the call is not sampled, it is dropped here, unbuilt and unboxed.
    pub fn candidate<N, F>(self, name: &str, candidate: N) -> Self
    where
        N: FnOnce() -> F + Send + 'a,
        F: Future<Output = Result<V, E>> + Send + 'a,
    {
        self.offer(name, candidate, |candidate| {
            InLine(Contained::new(Box::new(move || Box::pin(candidate()))))
        })
    }

    /// Runs control and the candidates.
    ///
    /// # Errors
    /// Control's, unchanged.
    pub async fn run<C, CF>(self, control: C) -> Result<V, E>
    where
        C: FnOnce() -> CF,
        CF: Future<Output = Result<V, E>>,
    {
        match self.state {
            State::Bare | State::Forced { found: None, .. } => control().await,
            State::Forced { found: Some(found), .. } => found.0.into_inner()().await,
            State::Sampled { key, offered } => {
                let inner = &self.experiment.inner;
                inner.run_in_turns(&key, control, offered, inner.in_line_timeout).await
            }
        }
    }
}

impl<'a, V: 'static, E: 'static, L: View<V>> Trial<'a, V, E, L, InLineSync<'a, V, E>> {
    /// Adds a candidate. If the call is not sampled, it is dropped here, unboxed.
    pub fn candidate<N>(self, name: &str, candidate: N) -> Self
    where
        N: FnOnce() -> Result<V, E> + 'a,
    {
        self.offer(name, candidate, |candidate| InLineSync(Contained::new(Box::new(candidate))))
    }

    /// Runs control and the candidates.
    ///
    /// # Errors
    /// Control's, unchanged.
    pub fn run<C>(self, control: C) -> Result<V, E>
    where
        C: FnOnce() -> Result<V, E>,
    {
        match self.state {
            State::Bare | State::Forced { found: None, .. } => control(),
            State::Forced { found: Some(found), .. } => found.0.into_inner()(),
            State::Sampled { key, offered } => {
                self.experiment.inner.run_in_turns_sync(&key, control, offered)
            }
        }
    }
}

impl<V, E, L> Executes<V, E, L> for Behind<V, E>
where
    V: Send + 'static,
    E: Send + 'static,
    L: Capture<V>,
{
    async fn execute(
        self,
        inner: &Inner<V, E, L>,
        stop: &mut tokio::sync::watch::Receiver<bool>,
        hold: Hold<V, E, L>,
    ) -> (Ran<V>, Option<Slot<V, E, L>>) {
        inner.execute(stop, self.0, hold).await
    }
}

impl<V, E, L> Executes<V, E, L> for BehindSync<V, E>
where
    V: Send + 'static,
    E: Send + 'static,
    L: Capture<V>,
{
    async fn execute(
        self,
        inner: &Inner<V, E, L>,
        stop: &mut tokio::sync::watch::Receiver<bool>,
        hold: Hold<V, E, L>,
    ) -> (Ran<V>, Option<Slot<V, E, L>>) {
        inner.execute_sync(stop, self.0, hold).await
    }
}

impl<V, E> Turn<V, E> for InLine<'_, V, E> {
    async fn take(self) -> Caught<Result<V, E>> {
        caught(self.0).await
    }
}

impl<V, E> Turn<V, E> for InLineSync<'_, V, E> {
    async fn take(self) -> Caught<Result<V, E>> {
        caught_sync(self.0)
    }
}
