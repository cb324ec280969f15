//! Runs and keeps what is the candidate's so that no panic gets out of it: not when it is built, polled or dropped.

use std::{
    any::Any,
    future::{Future, poll_fn},
    mem::needs_drop,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll},
};

/// What a candidate gave, or its panic.
pub(crate) type Caught<T> = Contained<Result<T, Box<dyn Any + Send>>>;

/// Something of the user's that is dropped under the net, wherever that happens: also on the way of a panic of control,
/// where a second one would end the process.
#[derive(Debug)]
pub(crate) struct Contained<T>(Option<T>);

impl<T> Contained<T> {
    #[inline]
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    #[inline]
    pub(crate) fn get(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("taken only by `into_inner`, which ends this"),
        }
    }

    #[inline]
    pub(crate) fn into_inner(mut self) -> T {
        match self.0.take() {
            Some(value) => value,
            None => unreachable!("taken only by `into_inner`, which ends this"),
        }
    }
}

impl<T> Drop for Contained<T> {
    #[inline]
    fn drop(&mut self) {
        if needs_drop::<T>()
            && let Some(value) = self.0.take()
        {
            drop_contained(value);
        }
    }
}

/// Builds the candidate's future and runs it to its end, under the net.
pub(crate) async fn caught<T, N, F>(build: Contained<N>) -> Caught<T>
where
    N: FnOnce() -> F,
    F: Future<Output = T>,
{
    let built = match catch_unwind(AssertUnwindSafe(build.into_inner())) {
        Ok(built) => built,
        Err(panic) => return Contained::new(Err(panic)),
    };
    let mut held = Held(pin!(Some(built)));
    let ended = poll_fn(|context| held.poll(context)).await;
    held.release();
    ended
}

/// As [`caught`], of code that does not await.
#[inline]
pub(crate) fn caught_sync<T>(run: Contained<impl FnOnce() -> T>) -> Caught<T> {
    Contained::new(catch_unwind(AssertUnwindSafe(run.into_inner())))
}

/// Drops a value of the user's making; a panic in that goes nowhere.
pub(crate) fn drop_contained<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        drop(crate::hooks::panic_message(panic));
    }
}

/// A candidate's future, dropped under the net even where its caller is cancelled.
struct Held<'a, F>(Pin<&'a mut Option<F>>);

impl<F: Future> Held<'_, F> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Caught<F::Output>> {
        let Some(future) = self.0.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
            Ok(poll) => poll.map(|output| Contained::new(Ok(output))),
            Err(panic) => Poll::Ready(Contained::new(Err(panic))),
        }
    }
}

impl<F> Held<'_, F> {
    fn release(&mut self) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.0.set(None))) {
            drop(crate::hooks::panic_message(panic));
        }
    }
}

impl<F> Drop for Held<'_, F> {
    fn drop(&mut self) {
        self.release();
    }
}
