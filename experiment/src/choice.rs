//! Calls without a control: one branch, named at run time, answers, and the others are compared with it.

use std::future::Future;

use crate::{Behind, BehindSync, Capture, Error, InLine, InLineSync, Trial, View};

/// One call without a control; see [`Trial::choose`]. `A` is the branch that answers, as it was given: it is not boxed.
#[must_use = "a choice does nothing until it is run"]
pub struct Choice<'a, V, E, L: View<V>, B, A = Nobody>
where
    V: 'static,
{
    trial: Trial<'a, V, E, L, B>,
    name: &'a str,
    answer: A,
}

/// No branch that answers so far.
#[derive(Debug)]
pub struct Nobody;

/// The branch that answers: this one, or one that was given before.
#[derive(Debug)]
pub enum Or<A, N> {
    /// One that was given before, if any.
    Before(A),
    /// This one.
    This(N),
}

/// Whether and how a branch answers that awaits.
pub trait Answer<V, E>: Sized {
    /// Whether there is one.
    fn is_there(&self) -> bool;

    /// What it gives; asked only where there is one.
    fn give(self) -> impl Future<Output = Result<V, E>>;
}

/// Whether and how a branch answers that does not await.
pub trait AnswerSync<V, E>: Sized {
    /// Whether there is one.
    fn is_there(&self) -> bool;

    /// What it gives; asked only where there is one.
    fn give(self) -> Result<V, E>;
}

impl<'a, V: 'static, E, L: View<V>, B> Choice<'a, V, E, L, B> {
    pub(crate) fn new(trial: Trial<'a, V, E, L, B>, name: &'a str) -> Self {
        Self { trial, name, answer: Nobody }
    }
}

impl<'a, V: 'static, E, L: View<V>, B, A> Choice<'a, V, E, L, B, A> {
    /// Runs the branch that answers by itself, by force: this call compares and counts nothing.
    pub fn alone(self) -> Self {
        Self { trial: self.trial.alone(), ..self }
    }

    /// Adds a branch; `offer` takes it where it does not answer.
    fn add<N>(
        self,
        name: &str,
        branch: N,
        offer: impl FnOnce(Trial<'a, V, E, L, B>, N) -> Trial<'a, V, E, L, B>,
    ) -> Choice<'a, V, E, L, B, Or<A, N>> {
        let (trial, answer) = match name == self.name {
            true => (self.trial, Or::This(branch)),
            false => (offer(self.trial, branch), Or::Before(self.answer)),
        };
        Choice { trial, name: self.name, answer }
    }

    fn nobody(&self) -> Error {
        Error::NoBranch { experiment: self.trial.experiment.name().to_owned(), branch: self.name.to_owned() }
    }
}

impl<'a, V: Send + 'static, E: Send + 'static, L: Capture<V>, A> Choice<'a, V, E, L, Behind<V, E>, A> {
    /// Adds a branch. One that does not answer is dropped here, unbuilt and unboxed, if the call is not sampled.
    pub fn branch<N, F>(self, name: &str, branch: N) -> Choice<'a, V, E, L, Behind<V, E>, Or<A, N>>
    where
        N: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        self.add(name, branch, |trial, branch| trial.candidate(name, branch))
    }

    /// Runs the branch that answers, and the others behind it. The outer error is the programmer's, the inner
    /// one the branch's.
    ///
    /// # Errors
    /// [`Error::NoBranch`] where no branch has the name that was chosen; none has run then.
    pub async fn run(self) -> Result<Result<V, E>, Error>
    where
        A: Answer<V, E>,
    {
        match self.answer.is_there() {
            true => Ok(self.trial.run(|| self.answer.give()).await),
            false => Err(self.nobody()),
        }
    }
}

impl<'a, V: Send + 'static, E: Send + 'static, L: Capture<V>, A> Choice<'a, V, E, L, BehindSync<V, E>, A> {
    /// Adds a branch. One that does not answer is dropped here, unboxed, if the call is not sampled.
    pub fn branch<N>(self, name: &str, branch: N) -> Choice<'a, V, E, L, BehindSync<V, E>, Or<A, N>>
    where
        N: FnOnce() -> Result<V, E> + Send + 'static,
    {
        self.add(name, branch, |trial, branch| trial.candidate(name, branch))
    }

    /// Runs the branch that answers, and the others behind it. The outer error is the programmer's, the inner
    /// one the branch's.
    ///
    /// # Errors
    /// [`Error::NoBranch`] where no branch has the name that was chosen; none has run then.
    pub fn run(self) -> Result<Result<V, E>, Error>
    where
        A: AnswerSync<V, E>,
    {
        match self.answer.is_there() {
            true => Ok(self.trial.run(|| self.answer.give())),
            false => Err(self.nobody()),
        }
    }
}

impl<'a, V: 'static, E: 'static, L: View<V>, A> Choice<'a, V, E, L, InLine<'a, V, E>, A> {
    /// Adds a branch. One that does not answer is dropped here, unbuilt and unboxed, if the call is not sampled.
    pub fn branch<N, F>(self, name: &str, branch: N) -> Choice<'a, V, E, L, InLine<'a, V, E>, Or<A, N>>
    where
        N: FnOnce() -> F + Send + 'a,
        F: Future<Output = Result<V, E>> + Send + 'a,
    {
        self.add(name, branch, |trial, branch| trial.candidate(name, branch))
    }

    /// Runs the branch that answers and the others. The outer error is the programmer's, the inner one the branch's.
    ///
    /// # Errors
    /// [`Error::NoBranch`] where no branch has the name that was chosen; none has run then.
    pub async fn run(self) -> Result<Result<V, E>, Error>
    where
        A: Answer<V, E>,
    {
        match self.answer.is_there() {
            true => Ok(self.trial.run(|| self.answer.give()).await),
            false => Err(self.nobody()),
        }
    }
}

impl<'a, V: 'static, E: 'static, L: View<V>, A> Choice<'a, V, E, L, InLineSync<'a, V, E>, A> {
    /// Adds a branch. One that does not answer is dropped here, unboxed, if the call is not sampled.
    pub fn branch<N>(self, name: &str, branch: N) -> Choice<'a, V, E, L, InLineSync<'a, V, E>, Or<A, N>>
    where
        N: FnOnce() -> Result<V, E> + 'a,
    {
        self.add(name, branch, |trial, branch| trial.candidate(name, branch))
    }

    /// Runs the branch that answers and the others. The outer error is the programmer's, the inner one the branch's.
    ///
    /// # Errors
    /// [`Error::NoBranch`] where no branch has the name that was chosen; none has run then.
    pub fn run(self) -> Result<Result<V, E>, Error>
    where
        A: AnswerSync<V, E>,
    {
        match self.answer.is_there() {
            true => Ok(self.trial.run(|| self.answer.give())),
            false => Err(self.nobody()),
        }
    }
}

impl<V, E> Answer<V, E> for Nobody {
    fn is_there(&self) -> bool {
        false
    }

    async fn give(self) -> Result<V, E> {
        unreachable!("asked only where there is one")
    }
}

impl<V, E, A, N, F> Answer<V, E> for Or<A, N>
where
    A: Answer<V, E>,
    N: FnOnce() -> F,
    F: Future<Output = Result<V, E>>,
{
    fn is_there(&self) -> bool {
        match self {
            Self::Before(before) => before.is_there(),
            Self::This(_) => true,
        }
    }

    async fn give(self) -> Result<V, E> {
        match self {
            Self::Before(before) => before.give().await,
            Self::This(branch) => branch().await,
        }
    }
}

impl<V, E> AnswerSync<V, E> for Nobody {
    fn is_there(&self) -> bool {
        false
    }

    fn give(self) -> Result<V, E> {
        unreachable!("asked only where there is one")
    }
}

impl<V, E, A, N> AnswerSync<V, E> for Or<A, N>
where
    A: AnswerSync<V, E>,
    N: FnOnce() -> Result<V, E>,
{
    fn is_there(&self) -> bool {
        match self {
            Self::Before(before) => before.is_there(),
            Self::This(_) => true,
        }
    }

    fn give(self) -> Result<V, E> {
        match self {
            Self::Before(before) => before.give(),
            Self::This(branch) => branch(),
        }
    }
}
