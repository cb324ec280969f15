//! Keeps what sampled calls need out of the frame of those that are not.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

/// Awaits a future by a call of its own. Within an `async fn` the compiler would merge it with its surroundings, and every
/// call, sampled or not, would set up and take down its frame: nanoseconds, where the whole call may take five.
#[inline]
pub(crate) fn apart<F: Future>(mut future: Pin<&mut F>) -> impl Future<Output = F::Output> {
    poll_fn(move |context| poll_apart(future.as_mut(), context))
}

#[inline(never)]
fn poll_apart<F: Future>(future: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
    future.poll(context)
}
