//! A candidate's thread: held while it runs, given up where it does not come back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

/// How many candidates may have a thread at once, and how many threads may be given up for lost meanwhile.
#[derive(Debug)]
pub(crate) struct Threads {
    free: Semaphore,
    replaceable: Semaphore,
}

/// Leave to use one thread.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Threads>);

/// A thread that was given up, and is back when this is dropped.
#[derive(Debug)]
struct Lost(Arc<Threads>);

impl Threads {
    pub(crate) fn new(threads: usize, stuck_max: usize) -> Self {
        let semaphore = |permits: usize| Semaphore::new(permits.min(Semaphore::MAX_PERMITS));
        Self { free: semaphore(threads), replaceable: semaphore(stuck_max) }
    }

    /// Whether none is free. Reads only: calls that are shed must not fight over who writes.
    pub(crate) fn are_taken(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// A thread, if one is free.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Permit> {
        self.free.try_acquire().ok()?.forget();
        Some(Permit(self.clone()))
    }

    /// A thread, when one is free: for what is bounded otherwise, and in nobody's way.
    pub(crate) async fn take(self: &Arc<Self>) -> Option<Permit> {
        self.free.acquire().await.ok()?.forget();
        Some(Permit(self.clone()))
    }

    fn give_up(self: &Arc<Self>) -> Option<Lost> {
        self.replaceable.try_acquire().ok()?.forget();
        Some(Lost(self.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.free.add_permits(1);
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        self.0.replaceable.add_permits(1);
    }
}

/// What a candidate holds while it has a thread: leave to use it, and the slot of its call.
#[derive(Debug)]
pub(crate) struct Seat<S> {
    threads: Option<Arc<Threads>>,
    state: Mutex<State<S>>,
}

#[derive(Debug)]
enum State<S> {
    Taken {
        _permit: Option<Permit>,
        slot: Option<S>,
    },
    /// Nobody waits for the candidate any more, another thread has taken its place.
    Stuck {
        _thread: Lost,
    },
    Left,
}

impl<S> Seat<S> {
    pub(crate) fn new(threads: Option<Arc<Threads>>, permit: Option<Permit>, slot: Option<S>) -> Self {
        Self { threads, state: Mutex::new(State::Taken { _permit: permit, slot }) }
    }

    /// Nobody waits any more for who sits here. Where its thread can be replaced, permit and slot are free for the
    /// next; else they stay with the thread until it is left.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        let Some(threads) = &self.threads else {
            return;
        };
        if matches!(*state, State::Taken { .. })
            && let Some(thread) = threads.give_up()
        {
            *state = State::Stuck { _thread: thread };
        }
    }

    /// The thread is free again; gives back the slot, where it was not given up.
    pub(crate) fn leave(&self) -> Option<S> {
        match std::mem::replace(&mut *self.lock(), State::Left) {
            State::Taken { slot, .. } => slot,
            State::Stuck { .. } | State::Left => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's side of a seat: it is left however the candidate ends, also where it never began.
pub(crate) struct Sitter<S>(pub(crate) Arc<Seat<S>>);

impl<S> Drop for Sitter<S> {
    fn drop(&mut self) {
        drop(self.0.leave());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> Arc<Threads> {
        Arc::new(Threads::new(1, 1))
    }

    #[test]
    fn a_thread_that_comes_back_gives_back_its_slot() {
        let threads = threads();
        let seat = Seat::new(Some(threads.clone()), threads.try_take(), Some("slot"));
        assert!(threads.try_take().is_none());
        assert_eq!(seat.leave(), Some("slot"));
        assert!(threads.try_take().is_some());
        seat.abandon();
        assert_eq!(seat.leave(), None, "too late to be given up, and left once");
    }

    #[test]
    fn a_thread_that_is_given_up_is_replaced_as_long_as_there_are_replacements() {
        let threads = threads();
        let slots = Arc::new(());
        let sit = || Seat::new(Some(threads.clone()), threads.try_take(), Some(slots.clone()));
        let first = sit();
        first.abandon();
        assert_eq!(Arc::strong_count(&slots), 1, "the slot is free");
        let second = sit();
        second.abandon();
        assert_eq!(Arc::strong_count(&slots), 2, "no replacement is left: it keeps what it has");
        assert!(threads.try_take().is_none());
        assert!(first.leave().is_none());
        second.abandon();
        assert!(threads.try_take().is_some(), "the first came back, so the second can be replaced");
        drop(Sitter(Arc::new(second)));
        assert_eq!(threads.replaceable.available_permits(), 1);
    }
}
