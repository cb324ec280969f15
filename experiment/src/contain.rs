//! Runs a candidate so that no panic gets out of it: not when it is built, polled or dropped.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll},
};

/// What a candidate gave, or its panic.
pub(crate) type Caught<T> = Result<T, Box<dyn Any + Send>>;

/// Builds the candidate's future and runs it to its end, under the net.
pub(crate) async fn caught<T, N, F>(build: N) -> Caught<T>
where
    N: FnOnce() -> F,
    F: Future<Output = T>,
{
    let mut held = Held(pin!(Some(catch_unwind(AssertUnwindSafe(build))?)));
    let ended = poll_fn(|context| held.poll(context)).await;
    held.release();
    ended
}

/// Drops a value of the candidate's making; a panic in that goes nowhere.
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
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
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
